-- Tickets, each in field t:<id> of the state of the request's first key. Words:
--
--   order sequence lease hold claim process claimant label payload home round
--   and for each of its keys: key limit cost conflict priority group max_waiting
--
-- A limit that has a name is written as in policies.lua.
--
-- `sequence` is "-" where it is the order, the first key "-". On the other keys the field holds "@"
-- and the first key. In front of the payload of a job that only workers of a gate can wake stands
-- the gate's name and "|" (S17), with "*" behind the name if it was evicted while its gate had no
-- worker, and "**" if it was superseded then; and then, if it was offered slots that it did not
-- claim, how often, "|", until when others go before it (0), and "|". It is in the queue of its
-- `home`, as a member that sorts by priority (its score), fair round, arrival order and sequence
-- (S7), followed by the id.

local REPEAT_AFTER, MOST_REPEATS = 5000000, 10 -- of the notice of a bad end

-- Returns what a request wants of one key, from its words.
function tickets.read_demand(w, i)
  return policies.read({
    key = w[i], cost = tonumber(w[i + 2]), conflict = w[i + 3],
    priority = tonumber(w[i + 4]), group = w[i + 5] ~= '-' and w[i + 5] or nil,
    max_waiting = tonumber(w[i + 6])
  }, w[i + 1])
end

-- The keys of the demands of these indexes, with a "|" between them.
function tickets.keys_at(demands, indexes)
  local keys = {}
  for _, i in ipairs(indexes) do keys[#keys + 1] = demands[i].key end
  return table.concat(keys, '|')
end

local TICKET_OF_ONE = '^' .. string.rep('(%S+) ', 17) .. '(%S+)$'

function tickets.read(s, id)
  local t = s.tickets[id]
  if t ~= nil then return t or nil end
  local record = state.get(s, 't:' .. id)
  if not record then return nil end
  if sub(record, 1, 1) == '@' then return tickets.read(state.load(sub(record, 2)), id) end
  local w = words_of(record, TICKET_OF_ONE)
  local order = tonumber(w[1])
  t = {
    id = id, order = order, sequence = tonumber(w[2]) or order, lease = tonumber(w[3]),
    hold = tonumber(w[4]), claim = tonumber(w[5]), process = state.untext(w[6]), claimant = state.untext(w[7]),
    label = w[8], payload = w[9], durable = w[9] ~= '-', home = tonumber(w[10]),
    round = tonumber(w[11]), demands = {}, part = '', name = '', offers = 0, deferred = 0
  }
  local part, payload = match(w[9], '^([^|]*)|(.*)$')
  if part then
    t.part, t.name, t.payload = part, part, payload
    if sub(part, -2) == EVICTED .. EVICTED then t.replaced, t.part = true, sub(part, 1, -2) end
    if sub(part, -1) == EVICTED then t.evicted, t.name = true, sub(t.part, 1, -2) end
    local offers, deferred, rest = match(payload, '^(%d+)|(%d+)|(.*)$')
    if rest then t.offers, t.deferred, t.payload = tonumber(offers), tonumber(deferred), rest end
  end
  for i = 12, #w, 7 do t.demands[#t.demands + 1] = tickets.read_demand(w, i) end
  if t.demands[1].key == '-' then t.demands[1].key = s.key end
  s.tickets[id] = t
  return t
end

function tickets.write(t)
  local s = state.load(t.demands[1].key)
  local order = int(t.order)
  local payload = t.payload
  if t.offers > 0 or t.deferred > 0 then payload = t.offers .. '|' .. int(t.deferred) .. '|' .. payload end
  if t.part ~= '' then payload = t.part .. (t.replaced and EVICTED or '') .. '|' .. payload end
  local words = {
    order, t.sequence == t.order and '-' or int(t.sequence), int(t.lease), int(t.hold),
    int(t.claim), state.text(t.process), state.text(t.claimant), t.label, payload, t.home, t.round
  }
  for i, d in ipairs(t.demands) do
    words[#words + 1] = (i == 1 and '-' or d.key) .. ' ' .. policies.word(d) .. ' ' .. int(d.cost) .. ' ' ..
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
-- number of waiters; of jobs of a gate in a field of their own, with its name and "|" before the
-- group); see FairRounds in limiter_memory. `fair` says whether there are any.

function tickets.present_round(s, priority)
  return s.fair == 1 and tonumber(state.get(s, 'r:' .. priority) or nil) or 0
end

function tickets.next_round(s, demand)
  local present = tickets.present_round(s, demand.priority)
  if not demand.group then return present + 1 end
  for name in pairs(s.lists and state.parts(s) or { [''] = true }) do
    local known = state.get(s, tickets.group_field(demand, name))
    present = math.max(present, known and tonumber(match(known, '^%d+')) or 0)
  end
  return present + 1
end

function tickets.group_field(demand, name)
  return 'g:' .. demand.priority .. ':' .. (name ~= '' and name .. '|' or '') .. demand.group
end

function tickets.enter_round(s, demand, round, name)
  local field = tickets.group_field(demand, name)
  local last, count = match(state.get(s, field) or '0 0', '^(%d+) (%d+)$')
  state.set(s, field, math.max(round, tonumber(last)) .. ' ' .. (tonumber(count) + 1))
  s.fair = 1
end

function tickets.leave_round(s, demand, name)
  local field = tickets.group_field(demand, name)
  local last, count = match(state.get(s, field) or '0 1', '^(%d+) (%d+)$')
  state.set(s, field, tonumber(count) > 1 and last .. ' ' .. (tonumber(count) - 1))
end

function tickets.serve_round(s, demand, round)
  if not demand.group then return end
  if round > tickets.present_round(s, demand.priority) then state.set(s, 'r:' .. demand.priority, round) end
end

local RANK = 36 -- characters of a rank; the id follows
local BEHIND = 10000000000000 -- above the score of any priority

function tickets.rank(round, order, sequence)
  return format('%08x%014x%014x', round, order, sequence)
end

-- Its score there: a deferred one is behind all others.
function tickets.score(t)
  return (t.deferred > 0 and BEHIND or 0) - t.demands[t.home].priority
end

-- The member of its queue that a ticket is.
function tickets.member(t) return tickets.rank(t.round, t.order, t.sequence) .. t.id end

function tickets.sit_down(t, home)
  local demand = t.demands[home]
  local s = state.load(demand.key)
  t.home = home
  t.round = tickets.next_round(s, demand)
  if demand.group then tickets.enter_round(s, demand, t.round, t.name) end
  state.set_place(s, t.part, tickets.member(t), t.deferred > 0 and tickets.score(t) or 0 - demand.priority)
  if t.name ~= '' then
    local lasts = presence.lasts(s, t.name)
    if lasts > now and (s.recheck == 0 or lasts < s.recheck) then s.recheck = lasts end
    if t.deferred > 0 then state.set_end(s, 'd' .. t.id, t.deferred, true) end
  end
  policies.note_end(s, t, true)
  if t.durable then
    local at = state.first_end(s)
    state.note(s, s.recheck > 0 and s.recheck < at and state.is_mixed(s) and s.recheck or at)
  else
    state.set_end(s, 't' .. t.id, t.due or now + t.lease, true)
    if s.recheck > 0 and state.unnamed(s) == 1 then state.note(s, s.recheck) end
  end
  t.due = nil
  tickets.write(t)
end

function tickets.stand_up(t)
  local demand = t.demands[t.home]
  local s = state.load(demand.key)
  state.set_place(s, t.part, tickets.member(t), false)
  if t.evicted then return end
  if not t.durable then state.drop_end(s, 't' .. t.id) end
  if t.deferred > 0 then state.drop_end(s, 'd' .. t.id) end
  if policies.is_timed(t) then state.drop_end(s, 'p' .. t.id) end
  if demand.group then tickets.leave_round(s, demand, t.name) end
  if s.queued == 0 and demand.group then state.set(s, 'r:' .. demand.priority, false) end
end

-- Takes a ticket that stands out of the books of its keys; its record may be kept.
function tickets.leave(t, keeps_record)
  for i, demand in ipairs(t.demands) do
    local s = state.load(demand.key)
    s.waiting = s.waiting - 1
    if t.durable then s.jobs = s.jobs - 1 end
    if not keeps_record or i > 1 then tickets.forget(s, t.id) end
  end
end

function tickets.remove(t)
  tickets.stand_up(t)
  tickets.leave(t)
end

-- Whether a ticket in a queue stopped renewing: a step that has not reaped all of a key serves none of
-- the dead, and none of them blocks a waiter (S2).
function tickets.is_dead(s, t)
  if t.durable then return false end
  local due = state.end_of(s, 't' .. t.id)
  return due and due <= now
end

-- Keeps the bad end of a ticket for when it asks, and notifies it. A durable ticket has no process:
-- the process that ran the step that ended its waiting is notified.
function tickets.remember(t, answer)
  local s = state.load(t.demands[1].key)
  state.remember(s, t, answer, t.durable)
  if t.durable and not state.notice(t, answer) and t.name ~= '' then tickets.keep_notice(s, t, answer) end
  state.notify(t.process, 'answer ' .. t.id .. ' ' .. answer)
end

-- Keeps the notice of a bad end until its gate has dealt with it: the ticket is gone, and the reply or
-- the message with the notice may be lost. In the hash `:refusals`, by the id: when it is repeated, how
-- often it was, the ticket's first key, its payload with the gate's name and "|" in front, the answer.
function tickets.keep_notice(s, t, answer)
  local kept = s.common .. ':refusals'
  tickets.set_notice(kept, t, now + REPEAT_AFTER, 0, s.key, answer)
  call('PEXPIRE', kept, int(FOREVER / 1000))
end

function tickets.set_notice(kept, t, due, times, key, answer)
  call('HSET', kept, t.id, int(due) .. ' ' .. times .. ' ' .. key .. ' ' .. t.name .. '|' .. t.payload .. ' ' .. answer)
end

-- Notes that the queue of a job knows how its waiting ended.
function tickets.drop_notice(s, id) call('HDEL', s.common .. ':refusals', id) end

-- The same of a job that asked; how it ended is remembered for a retry of that request.
function tickets.asked(s, id)
  tickets.drop_notice(s, id)
  call('PEXPIRE', s.head .. ':ended:' .. id, REMEMBER)
end

function tickets.finish(t, answer)
  tickets.remove(t)
  tickets.remember(t, answer)
end

-- Keeps a ticket that stands until its gate has a worker again, to be notified that its waiting is over.
function tickets.keep_evicted(t)
  local s = state.load(t.demands[t.home].key)
  t.evicted, t.part, t.offers, t.deferred = true, t.name .. EVICTED, 0, 0
  state.set_place(s, t.part, tickets.member(t), 0)
  state.note(s, state.next_due(s))
  tickets.write(t)
end

-- The same of one that a newer call on this key superseded.
function tickets.keep_replaced(t, key)
  for i, demand in ipairs(t.demands) do
    if demand.key == key then t.home = i end
  end
  t.replaced = true
  tickets.keep_evicted(t)
end

-- The answer to a ticket that was kept so.
function tickets.end_of_evicted(t)
  local demand = t.demands[t.home]
  if t.replaced then return 'replaced ' .. demand.key end
  return admission.refusal(state.load(demand.key), demand, 'evicted')
end

-- Notifies a gate of a job whose waiting ended while it had no worker; returns the answer.
function tickets.end_evicted(t)
  local answer = tickets.end_of_evicted(t)
  tickets.finish(t, answer)
  return answer
end
