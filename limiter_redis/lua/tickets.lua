-- Tickets: who waits, in field t:<id> of the state of the request's first key. Words:
--
--   order sequence lease hold claim process claimant label payload home round
--   and for each of its keys: key limit cost conflict priority group max_waiting
--
-- `sequence` is "-" where it is the order, the first key "-". On the other keys the field holds "@"
-- and the first key. It sits in the queue of its `home`, as a member that sorts by priority (its
-- score), fair round, arrival order and sequence (S7), followed by the id.

-- Returns what a request wants of one key, from its words.
local function read_demand(w, i)
  return {
    key = w[i], limit = tonumber(w[i + 1]), cost = tonumber(w[i + 2]), conflict = w[i + 3],
    priority = tonumber(w[i + 4]), group = w[i + 5] ~= '-' and w[i + 5] or nil,
    max_waiting = tonumber(w[i + 6])
  }
end

local function read_ticket(s, id)
  local t = s.tickets[id]
  if t ~= nil then return t or nil end
  local record = get(s, 't:' .. id)
  if not record then return nil end
  if string.sub(record, 1, 1) == '@' then return read_ticket(load(string.sub(record, 2)), id) end
  local w = {}
  for word in string.gmatch(record, '%S+') do w[#w + 1] = word end
  local order = tonumber(w[1])
  t = {
    id = id, order = order, sequence = tonumber(w[2]) or order, lease = tonumber(w[3]),
    hold = tonumber(w[4]), claim = tonumber(w[5]), process = untext(w[6]), claimant = untext(w[7]),
    label = w[8], payload = w[9], durable = w[9] ~= '-', home = tonumber(w[10]),
    round = tonumber(w[11]), demands = {}
  }
  for i = 12, #w, 7 do t.demands[#t.demands + 1] = read_demand(w, i) end
  if t.demands[1].key == '-' then t.demands[1].key = s.key end
  s.tickets[id] = t
  return t
end

local function write_ticket(t)
  local s = load(t.demands[1].key)
  local order = int(t.order)
  local words = {
    order, t.sequence == t.order and '-' or int(t.sequence), int(t.lease), int(t.hold),
    int(t.claim), text(t.process), text(t.claimant), t.label, t.payload, t.home, t.round
  }
  for i, d in ipairs(t.demands) do
    words[#words + 1] = (i == 1 and '-' or d.key) .. ' ' .. d.limit .. ' ' .. d.cost .. ' ' ..
      d.conflict .. ' ' .. d.priority .. ' ' .. (d.group or '-') .. ' ' .. d.max_waiting
  end
  set(s, 't:' .. t.id, table.concat(words, ' '))
  s.tickets[t.id] = t
end

local function forget_ticket(s, id)
  set(s, 't:' .. id, false)
  s.tickets[id] = false
end

local function add_ticket(t)
  for i, demand in ipairs(t.demands) do
    local s = load(demand.key)
    s.waiting = s.waiting + 1
    if i > 1 then
      set(s, 't:' .. t.id, '@' .. t.demands[1].key)
      s.tickets[t.id] = nil
    end
    outlive(s, now + (t.durable and FOREVER or t.lease))
  end
end

-- Fair rounds: fields r:<priority> (the present round) and g:<priority>:<group> (last round and
-- number of waiters); see FairRounds in limiter_memory. `fair` says whether there are any.

local function present_round(s, priority)
  return s.fair == 1 and tonumber(get(s, 'r:' .. priority) or nil) or 0
end

local function next_round(s, demand)
  local present = present_round(s, demand.priority)
  if not demand.group then return present + 1 end
  local known = get(s, 'g:' .. demand.priority .. ':' .. demand.group)
  return math.max(present, known and tonumber(match(known, '^%d+')) or 0) + 1
end

local function enter_round(s, demand, round)
  if not demand.group then return end
  local field = 'g:' .. demand.priority .. ':' .. demand.group
  local last, count = match(get(s, field) or '0 0', '^(%d+) (%d+)$')
  set(s, field, math.max(round, tonumber(last)) .. ' ' .. (tonumber(count) + 1))
  s.fair = 1
end

local function leave_round(s, demand)
  if not demand.group then return end
  local field = 'g:' .. demand.priority .. ':' .. demand.group
  local last, count = match(get(s, field) or '0 1', '^(%d+) (%d+)$')
  set(s, field, tonumber(count) > 1 and last .. ' ' .. (tonumber(count) - 1))
end

local function serve_round(s, demand, round)
  if not demand.group then return end
  if round > present_round(s, demand.priority) then set(s, 'r:' .. demand.priority, round) end
end

local RANK = 36 -- characters of a rank; the id follows

local function rank(round, order, sequence)
  return string.format('%08x%014x%014x', round, order, sequence)
end

local function sit_down(t, home)
  local demand = t.demands[home]
  local s = load(demand.key)
  t.home = home
  t.round = next_round(s, demand)
  enter_round(s, demand, t.round)
  set_place(s, rank(t.round, t.order, t.sequence) .. t.id, 0 - demand.priority)
  if not t.durable then set_end(s, 't' .. t.id, t.due or now + t.lease, true) end
  t.due = nil
  write_ticket(t)
end

local function stand_up(t)
  local demand = t.demands[t.home]
  local s = load(demand.key)
  set_place(s, rank(t.round, t.order, t.sequence) .. t.id, false)
  if not t.durable then drop_end(s, 't' .. t.id) end
  leave_round(s, demand)
  if s.queued == 0 and demand.group then set(s, 'r:' .. demand.priority, false) end
end

-- Takes a ticket that stands out of the books of its keys.
local function leave(t)
  for _, demand in ipairs(t.demands) do
    local s = load(demand.key)
    s.waiting = s.waiting - 1
    forget_ticket(s, t.id)
  end
end

local function remove_ticket(t)
  stand_up(t)
  leave(t)
end

-- Whether a ticket in a queue stopped renewing: a step that could not reap all still serves none
-- of the dead (S2).
local function is_dead(s, t)
  if t.durable or (s.reaped_at == now and not s.unreaped) then return false end
  local due = end_of(s, 't' .. t.id)
  return due and due <= now
end

-- Keeps the bad end of a ticket for when it asks, and tells it. A durable ticket has no process:
-- whoever ran the step that ended its waiting is told.
local function remember(t, answer)
  call('SET', load(t.demands[1].key).head .. ':ended:' .. t.id, answer, 'PX', REMEMBER)
  if t.durable then news[#news + 1] = 'notice ' .. t.id .. ' ' .. t.payload .. ' ' .. answer end
  tell(t.process, 'answer ' .. t.id .. ' ' .. answer)
end

local function end_ticket(t, answer)
  remove_ticket(t)
  remember(t, answer)
end
