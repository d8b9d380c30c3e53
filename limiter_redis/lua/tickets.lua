-- Tickets: who waits, in field t:<id> of the state of the request's first key. Words:
--
--   order sequence lease hold claim process claimant label payload home round
--   and for each of its keys: key limit cost conflict priority group max_waiting
--
-- `sequence` is "-" where it is the order, the first key "-". On the other keys the field holds "@"
-- and the first key. It sits in the queue of its `home`, as a member that sorts by priority (its
-- score), fair round, arrival order and sequence (S7), followed by the id.

-- Returns what a request wants of one key, from its words.
function tickets.read_demand(w, i)
  return {
    key = w[i], limit = tonumber(w[i + 1]), cost = tonumber(w[i + 2]), conflict = w[i + 3],
    priority = tonumber(w[i + 4]), group = w[i + 5] ~= '-' and w[i + 5] or nil,
    max_waiting = tonumber(w[i + 6])
  }
end

function tickets.read(s, id)
  local t = s.tickets[id]
  if t ~= nil then return t or nil end
  local record = state.get(s, 't:' .. id)
  if not record then return nil end
  if string.sub(record, 1, 1) == '@' then return tickets.read(state.load(string.sub(record, 2)), id) end
  local w = {}
  for word in string.gmatch(record, '%S+') do w[#w + 1] = word end
  local order = tonumber(w[1])
  t = {
    id = id, order = order, sequence = tonumber(w[2]) or order, lease = tonumber(w[3]),
    hold = tonumber(w[4]), claim = tonumber(w[5]), process = state.untext(w[6]), claimant = state.untext(w[7]),
    label = w[8], payload = w[9], durable = w[9] ~= '-', home = tonumber(w[10]),
    round = tonumber(w[11]), demands = {}
  }
  for i = 12, #w, 7 do t.demands[#t.demands + 1] = tickets.read_demand(w, i) end
  if t.demands[1].key == '-' then t.demands[1].key = s.key end
  s.tickets[id] = t
  return t
end

function tickets.write(t)
  local s = state.load(t.demands[1].key)
  local order = int(t.order)
  local words = {
    order, t.sequence == t.order and '-' or int(t.sequence), int(t.lease), int(t.hold),
    int(t.claim), state.text(t.process), state.text(t.claimant), t.label, t.payload, t.home, t.round
  }
  for i, d in ipairs(t.demands) do
    words[#words + 1] = (i == 1 and '-' or d.key) .. ' ' .. int(d.limit) .. ' ' .. int(d.cost) .. ' ' ..
      d.conflict .. ' ' .. d.priority .. ' ' .. (d.group or '-') .. ' ' .. d.max_waiting
  end
  state.set(s, 't:' .. t.id, table.concat(words, ' '))
  s.tickets[t.id] = t
end

function tickets.forget(s, id)
  state.set(s, 't:' .. id, false)
  s.tickets[id] = false
end

function tickets.add(t)
  for i, demand in ipairs(t.demands) do
    local s = state.load(demand.key)
    s.waiting = s.waiting + 1
    if t.durable then s.jobs = s.jobs + 1 end
    if i > 1 then
      state.set(s, 't:' .. t.id, '@' .. t.demands[1].key)
      s.tickets[t.id] = nil
    end
    state.outlive(s, now + (t.durable and FOREVER or t.lease))
  end
end

-- Fair rounds: fields r:<priority> (the present round) and g:<priority>:<group> (last round and
-- number of waiters); see FairRounds in limiter_memory. `fair` says whether there are any.

function tickets.present_round(s, priority)
  return s.fair == 1 and tonumber(state.get(s, 'r:' .. priority) or nil) or 0
end

function tickets.next_round(s, demand)
  local present = tickets.present_round(s, demand.priority)
  if not demand.group then return present + 1 end
  local known = state.get(s, 'g:' .. demand.priority .. ':' .. demand.group)
  return math.max(present, known and tonumber(match(known, '^%d+')) or 0) + 1
end

function tickets.enter_round(s, demand, round)
  if not demand.group then return end
  local field = 'g:' .. demand.priority .. ':' .. demand.group
  local last, count = match(state.get(s, field) or '0 0', '^(%d+) (%d+)$')
  state.set(s, field, math.max(round, tonumber(last)) .. ' ' .. (tonumber(count) + 1))
  s.fair = 1
end

function tickets.leave_round(s, demand)
  if not demand.group then return end
  local field = 'g:' .. demand.priority .. ':' .. demand.group
  local last, count = match(state.get(s, field) or '0 1', '^(%d+) (%d+)$')
  state.set(s, field, tonumber(count) > 1 and last .. ' ' .. (tonumber(count) - 1))
end

function tickets.serve_round(s, demand, round)
  if not demand.group then return end
  if round > tickets.present_round(s, demand.priority) then state.set(s, 'r:' .. demand.priority, round) end
end

local RANK = 36 -- characters of a rank; the id follows

function tickets.rank(round, order, sequence)
  return format('%08x%014x%014x', round, order, sequence)
end

-- The member of its queue that a ticket is.
function tickets.member(t) return tickets.rank(t.round, t.order, t.sequence) .. t.id end

function tickets.sit_down(t, home)
  local demand = t.demands[home]
  local s = state.load(demand.key)
  t.home = home
  t.round = tickets.next_round(s, demand)
  tickets.enter_round(s, demand, t.round)
  state.set_place(s, tickets.member(t), 0 - demand.priority)
  if t.durable then
    state.note(s, state.first_end(s))
  else
    state.set_end(s, 't' .. t.id, t.due or now + t.lease, true)
  end
  t.due = nil
  tickets.write(t)
end

function tickets.stand_up(t)
  local demand = t.demands[t.home]
  local s = state.load(demand.key)
  state.set_place(s, tickets.member(t), false)
  if not t.durable then state.drop_end(s, 't' .. t.id) end
  tickets.leave_round(s, demand)
  if s.queued == 0 and demand.group then state.set(s, 'r:' .. demand.priority, false) end
end

-- Takes a ticket that stands out of the books of its keys.
function tickets.leave(t)
  for _, demand in ipairs(t.demands) do
    local s = state.load(demand.key)
    s.waiting = s.waiting - 1
    if t.durable then s.jobs = s.jobs - 1 end
    tickets.forget(s, t.id)
  end
end

function tickets.remove(t)
  tickets.stand_up(t)
  tickets.leave(t)
end

-- Whether a ticket in a queue stopped renewing: a step that could not reap all still serves none
-- of the dead (S2).
function tickets.is_dead(s, t)
  if t.durable or (s.reaped_at == now and not s.unreaped) then return false end
  local due = state.end_of(s, 't' .. t.id)
  return due and due <= now
end

-- Keeps the bad end of a ticket for when it asks, and tells it. A durable ticket has no process:
-- whoever ran the step that ended its waiting is told.
function tickets.remember(t, answer)
  state.remember(state.load(t.demands[1].key), t, answer)
  if t.durable then state.notice(t, answer) end
  state.tell(t.process, 'answer ' .. t.id .. ' ' .. answer)
end

function tickets.finish(t, answer)
  tickets.remove(t)
  tickets.remember(t, answer)
end
