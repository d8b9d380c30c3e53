-- What the steps share: the state of keys, holders, tickets, news.
--
-- The rules S1 to S19 are those of limiter_core/store.py; the layout is shown in
-- docs/redis-layout.md. Names that are not defined here stand in entry.lua.

local function general()

local CHUNK = 128
local FOREVER = 604800000000 -- how long a durable ticket is kept: 7 days
local REMEMBER = 60000 -- milliseconds that a ticket's bad end is remembered

local news = {} -- what others in the calling process have to hear
local states = {} -- the keys that were loaded, by name
local steps = {} -- the operations, by name

-- Numbers above 2^31 lose digits in Lua's own tostring.
local function int(number) return string.format('%.0f', number) end

-- A text without spaces in place of one that may be empty; back with `untext`.
local function text(value) if value == '' then return '-' end return value end
local function untext(value) if value == '-' then return '' end return value end

-- Returns the state of a key. Its numbers are written back by `save_all`; holders and tickets
-- are fields beside them and are written at once.
local function load(key)
  local s = states[key]
  if s then return s end
  local state, ends, queue, head = names(key)
  s = { key = key, state = state, ends = ends, queue = queue, head = head, need = 0 }
  local m = call('HMGET', state, 'used', 'waiting', 'override', 'paused', 'token', 'order',
    'expires', 'queued', 'sole', 'due')
  s.used = tonumber(m[1]) or 0
  s.waiting = tonumber(m[2]) or 0
  s.override = tonumber(m[3])
  s.paused = m[4] == '1'
  s.token = tonumber(m[5]) or 0
  s.order = tonumber(m[6]) or 0
  s.expires = tonumber(m[7]) or 0
  s.queued = tonumber(m[8]) or 0
  s.exists = m[1] ~= false
  -- Whether these are known to exist, with an expiry; a new or emptied one starts without.
  s.had_ends = s.used > 0 and not m[9]
  s.had_queue = s.queued > 0
  s.was_kept = s.override or s.paused
  if m[9] then -- from the form for a single holder to the general one
    call('HDEL', state, 'sole', 'due')
    call('ZADD', ends, m[10], 'h' .. m[9])
    s.changed = true
  end
  states[key] = s
  return s
end

-- The index of what durable tickets were offered and have to claim (S17): keys, by the end of the
-- claim time. One per scope; keys without a scope share one.
local function offers_of(s)
  if string.find(s.key, '/', 1, true) then return s.head .. ':offers' end
  return '{' .. namespace .. '}:offers'
end

local function outlive(s, due)
  s.changed = true
  if due + GRACE > s.need then s.need = due + GRACE end
end

-- Writes what changed, drops keys that nobody uses (S14), sets expiries that no member outlives.
local function save_all()
  for _, s in pairs(states) do
    if s.changed then
      if s.used == 0 and s.waiting == 0 and not s.override and not s.paused then
        if s.exists or s.written then call('DEL', s.state, s.ends, s.queue) end
      else
        local kept = s.override or s.paused
        local longer = s.need > s.expires
        -- Longer than needed, so that the next steps need not say it again.
        if longer then s.expires = s.need + GRACE end
        call('HSET', s.state, 'used', s.used, 'waiting', s.waiting, 'queued', s.queued,
          'token', int(s.token), 'order', int(s.order), 'expires', int(s.expires))
        local at = int(math.ceil(s.expires / 1000))
        if kept then
          call('PERSIST', s.state)
        elseif longer or not s.exists or s.was_kept then
          call('PEXPIREAT', s.state, at)
        end
        if longer or not s.had_ends then call('PEXPIREAT', s.ends, at) end
        if s.queued > 0 and (longer or not s.had_queue) then call('PEXPIREAT', s.queue, at) end
      end
    end
  end
end

-- The number by which a demand is judged (S12).
local function limit_of(s, demand) return s.override or demand.limit end

local function fits(s, demand) return s.used + demand.cost <= limit_of(s, demand) end

-- Microseconds until the earliest known end on a key, "-" if none is known.
local function next_end(s)
  if s.used == 0 and s.waiting == 0 then return '-' end
  local first = call('ZRANGE', s.ends, 0, 0, 'WITHSCORES')
  if not first[2] then return '-' end
  return int(math.max(0, tonumber(first[2]) - now))
end

-- News: to the calling process in the reply, to any other by its channel.
local function tell(channel, line)
  if channel == '' then return end
  if channel == own_channel then
    news[#news + 1] = line
  else
    call('PUBLISH', channel, line)
  end
end

-- A durable ticket has no process: whoever ran the step that ended its waiting is told.
local function notice(t, answer)
  news[#news + 1] = 'notice ' .. t.id .. ' ' .. t.payload .. ' ' .. answer
end

-- Holders ----------------------------------------------------------------------------------------
--
-- Field h:<id> of a state: token cost limit since ends lease claimed preempted channel claimant
-- label keys. `ends` is the end of max_hold (0 for none), `keys` all keys of the lease with a "|"
-- between them. The end of the lease is the score of h<id> in the ends.

local function read_holder(s, id)
  local record = call('HGET', s.state, 'h:' .. id)
  if not record then return nil end
  local f = {}
  for field in string.gmatch(record, '%S+') do f[#f + 1] = field end
  return {
    id = id, token = tonumber(f[1]), cost = tonumber(f[2]), limit = tonumber(f[3]),
    since = tonumber(f[4]), ends = tonumber(f[5]), lease = tonumber(f[6]), claimed = f[7] == '1',
    preempted = f[8] == '1', channel = untext(f[9]), claimant = untext(f[10]), label = f[11],
    keys = f[12]
  }
end

local function write_holder(s, h)
  call('HSET', s.state, 'h:' .. h.id, table.concat({
    int(h.token), h.cost, h.limit, int(h.since), int(h.ends), int(h.lease), h.claimed and '1' or '0',
    h.preempted and '1' or '0', text(h.channel), text(h.claimant), h.label, h.keys
  }, ' '))
  s.written = true
end

local function keys_of(joined)
  local keys = {}
  for key in string.gmatch(joined, '[^|]+') do keys[#keys + 1] = key end
  return keys
end

local function due_of(h, seconds_from_now)
  local due = now + seconds_from_now
  if h.ends > 0 and h.ends < due then due = h.ends end
  return due
end

local function remove_holder(h)
  for _, key in ipairs(keys_of(h.keys)) do
    local s = load(key)
    local own = read_holder(s, h.id)
    if own then
      s.used = s.used - own.cost
      call('HDEL', s.state, 'h:' .. h.id)
      call('ZREM', s.ends, 'h' .. h.id)
      s.had_ends = false
      s.changed = true
    end
  end
end

-- Gives the slots. `r` is a request or a ticket: id, lease, hold, claim, channel, claimant, label,
-- demands.
local function grant(r, claimed, token)
  if not token then
    token = now
    for _, demand in ipairs(r.demands) do
      local s = load(demand.key)
      if s.token >= token then token = s.token + 1 end
    end
  end
  local keys = {}
  for i, demand in ipairs(r.demands) do keys[i] = demand.key end
  local joined = table.concat(keys, '|')
  local due
  for _, demand in ipairs(r.demands) do
    local s = load(demand.key)
    local h = {
      id = r.id, token = token, cost = demand.cost, limit = demand.limit, since = now, ends = 0,
      lease = r.lease, claimed = claimed, preempted = false, channel = r.channel,
      claimant = r.claimant, label = r.label, keys = joined
    }
    if claimed and r.hold > 0 then h.ends = now + r.hold end
    due = due_of(h, claimed and r.lease or r.claim)
    s.used = s.used + demand.cost
    if token > s.token then s.token = token end
    write_holder(s, h)
    call('ZADD', s.ends, int(due), 'h' .. r.id)
    outlive(s, due)
  end
  return token, due
end

-- Tickets ----------------------------------------------------------------------------------------
--
-- Field t:<id> of the state of the request's first key: the ticket as JSON. On its other keys the
-- field holds "@" and that first key. It sits in the queue of its `home` as a member that sorts by
-- priority, fair round, arrival order and sequence (S7), followed by the id.

local function ticket_record(s, id)
  local record = call('HGET', s.state, 't:' .. id)
  if record and string.sub(record, 1, 1) == '@' then
    record = call('HGET', load(string.sub(record, 2)).state, 't:' .. id)
  end
  return record
end

local function read_ticket(s, id)
  local record = ticket_record(s, id)
  if not record then return nil end
  local t = cjson.decode(record)
  t.order, t.sequence, t.since = tonumber(t.order), tonumber(t.sequence), tonumber(t.since)
  t.demands = t.d
  return t
end

local function write_ticket(t)
  local s = load(t.demands[1].key)
  call('HSET', s.state, 't:' .. t.id, cjson.encode({
    id = t.id, order = int(t.order), sequence = int(t.sequence), since = int(t.since), lease = t.lease,
    hold = t.hold, claim = t.claim, durable = t.durable, payload = t.payload,
    claimant = t.claimant, label = t.label, channel = t.channel, home = t.home, round = t.round,
    member = t.member, d = t.demands
  }))
  s.written = true
end

local function add_ticket(t)
  for i, demand in ipairs(t.demands) do
    local s = load(demand.key)
    s.waiting = s.waiting + 1
    s.changed = true
    if i > 1 then
      call('HSET', s.state, 't:' .. t.id, '@' .. t.demands[1].key)
      s.written = true
    end
    outlive(s, now + (t.durable and FOREVER or t.lease))
  end
end

-- Fair rounds: fields r:<priority> (the present round) and g:<priority>:<group> (last round and
-- number of waiters); see FairRounds in limiter_memory.

local function next_round(s, demand)
  local present = tonumber(call('HGET', s.state, 'r:' .. demand.priority)) or 0
  if not demand.group then return present + 1 end
  local known = call('HGET', s.state, 'g:' .. demand.priority .. ':' .. demand.group)
  local last = known and tonumber(string.match(known, '^%d+')) or 0
  return math.max(present, last) + 1
end

local function enter_round(s, demand, round)
  if not demand.group then return end
  local field = 'g:' .. demand.priority .. ':' .. demand.group
  local last, count = string.match(call('HGET', s.state, field) or '0 0', '^(%d+) (%d+)$')
  call('HSET', s.state, field, math.max(round, tonumber(last)) .. ' ' .. (tonumber(count) + 1))
  s.fair = true
end

local function leave_round(s, demand)
  if not demand.group then return end
  local field = 'g:' .. demand.priority .. ':' .. demand.group
  local last, count = string.match(call('HGET', s.state, field) or '0 1', '^(%d+) (%d+)$')
  if tonumber(count) > 1 then
    call('HSET', s.state, field, last .. ' ' .. (tonumber(count) - 1))
  else
    call('HDEL', s.state, field)
  end
end

local function serve_round(s, demand, round)
  if not demand.group then return end
  local field = 'r:' .. demand.priority
  if round > (tonumber(call('HGET', s.state, field)) or 0) then
    call('HSET', s.state, field, round)
  end
end

local function rank(demand, round, order, sequence)
  return string.format('%08x%08x%014x%014x', 2147483648 - demand.priority, round, order, sequence)
end

local RANK = 44 -- characters of a rank; the id follows

local function sit_down(t, home)
  local demand = t.demands[home]
  local s = load(demand.key)
  t.home = home
  t.round = next_round(s, demand)
  enter_round(s, demand, t.round)
  t.member = rank(demand, t.round, t.order, t.sequence) .. t.id
  call('ZADD', s.queue, 0, t.member)
  s.queued = s.queued + 1
  s.changed = true
  if not t.durable then call('ZADD', s.ends, int(tonumber(t.due) or now + t.lease), 't' .. t.id) end
  write_ticket(t)
end

local function stand_up(t)
  local demand = t.demands[t.home]
  local s = load(demand.key)
  if call('ZREM', s.queue, t.member) == 1 then s.queued = s.queued - 1 end
  call('ZREM', s.ends, 't' .. t.id)
  s.had_ends, s.had_queue = false, s.queued > 0 and s.had_queue
  leave_round(s, demand)
  if s.queued == 0 and demand.group then
    call('HDEL', s.state, 'r:' .. demand.priority)
  end
  s.changed = true
end

local function remove_ticket(t)
  stand_up(t)
  for _, demand in ipairs(t.demands) do
    local s = load(demand.key)
    s.waiting = s.waiting - 1
    s.changed = true
    call('HDEL', s.state, 't:' .. t.id)
  end
end

-- Whether a ticket in a queue stopped renewing: a step that could not reap all still serves none
-- of the dead (S2).
local function is_dead(s, t)
  if t.durable or (s.reaped_at == now and not s.unreaped) then return false end
  local due = call('ZSCORE', s.ends, 't' .. t.id)
  return due and tonumber(due) <= now
end

local function first_in_queue(s)
  if s.queued == 0 then return nil end
  return call('ZRANGE', s.queue, 0, 0)[1]
end

-- Whether a waiter, or a pause, stands before a call that would come in now (S3).
local function stands_back(s, demand, order, sequence)
  if s.paused then return true end
  local first = first_in_queue(s)
  if not first then return false end
  return string.sub(first, 1, RANK) < rank(demand, next_round(s, demand), order, sequence)
end

-- Keeps the bad end of a ticket for when it asks, and tells it.
local function remember(t, answer)
  local s = load(t.demands[1].key)
  call('SET', s.head .. ':ended:' .. t.id, answer, 'PX', REMEMBER)
  if t.durable then notice(t, answer) end
  tell(t.channel, 'answer ' .. t.id .. ' ' .. answer)
end

local function end_ticket(t, answer)
  remove_ticket(t)
  remember(t, answer)
end

local function refusal(s, demand, reason)
  local limit = s.paused and 0 or limit_of(s, demand)
  return 'refused ' .. s.key .. ' ' .. limit .. ' ' .. s.used .. ' ' .. next_end(s) .. ' ' .. reason
end

-- The demand because of which a blocked request may not wait, if there is one (§5 of the design).
local function refusing(wait, demands, blocking)
  if not wait then return blocking[1] end
  for _, i in ipairs(blocking) do
    if demands[i].conflict == 'cancel' then return i end
  end
  return nil
end

-- Waiting ----------------------------------------------------------------------------------------

local function each_waiting(s, visit)
  local ids = {}
  for _, member in ipairs(call('ZRANGE', s.queue, 0, -1)) do
    ids[#ids + 1] = string.sub(member, RANK + 1)
  end
  if s.waiting > s.queued then -- some sit in the queue of another of their keys
    for _, field in ipairs(call('HKEYS', s.state)) do
      if string.sub(field, 1, 2) == 't:' then ids[#ids + 1] = string.sub(field, 3) end
    end
  end
  local seen = {}
  for _, id in ipairs(ids) do
    if not seen[id] then
      seen[id] = true
      local t = read_ticket(s, id)
      if t and not read_holder(s, id) then visit(t) end
    end
  end
end

local function older(a, b)
  return a.order < b.order or (a.order == b.order and a.sequence < b.sequence)
end

local SUPERSEDES = { cancel_running = true, keep_latest = true }

-- Asks the oldest holders to let go until the demand would fit; adds keys that lost one to `work`.
local function preempt(s, demand, work)
  local limit = limit_of(s, demand)
  if s.paused or demand.cost > limit then return end
  local missing = s.used + demand.cost - limit
  local others = {}
  for _, member in ipairs(call('ZRANGE', s.ends, 0, -1)) do
    if string.sub(member, 1, 1) == 'h' then
      local h = read_holder(s, string.sub(member, 2))
      if h and h.preempted then
        missing = missing - h.cost
      elseif h then
        others[#others + 1] = h
      end
    end
  end
  table.sort(others, function(a, b) return a.token < b.token end)
  for _, h in ipairs(others) do
    if missing <= 0 then break end
    missing = missing - h.cost
    if h.claimed then
      for _, key in ipairs(keys_of(h.keys)) do
        local own = read_holder(load(key), h.id)
        if own then
          own.preempted = true
          write_holder(load(key), own)
        end
      end
      tell(h.channel, 'lost ' .. h.id .. ' preempted')
    else -- handed over, but not taken up: for its caller it still waits
      local t = read_ticket(load(keys_of(h.keys)[1]), h.id)
      remove_holder(h)
      for _, key in ipairs(keys_of(h.keys)) do work[#work + 1] = key end
      if t then
        for _, d in ipairs(t.demands) do
          call('HDEL', load(d.key).state, 't:' .. t.id)
        end
        remember(t, 'replaced ' .. s.key)
      end
    end
  end
end

-- Lets a standing ticket wait in a queue; what that does to others is its resolution. Adds the
-- keys that have to be served afterwards to `work`. Returns whether the ticket still waits.
local function take_place(t, home, work)
  local demand = t.demands[home]
  local s = load(demand.key)
  if SUPERSEDES[demand.conflict] then
    local replaced = false
    local in_the_way = {}
    each_waiting(s, function(other)
      if other.id == t.id then return end
      if older(other, t) then
        in_the_way[#in_the_way + 1] = other
      else
        for _, d in ipairs(other.demands) do
          if d.key == s.key and SUPERSEDES[d.conflict] then replaced = true end
        end
      end
    end)
    if replaced then
      for _, d in ipairs(t.demands) do
        local each = load(d.key)
        each.waiting = each.waiting - 1
        each.changed = true
        call('HDEL', each.state, 't:' .. t.id)
        work[#work + 1] = d.key
      end
      remember(t, 'replaced ' .. s.key)
      return false
    end
    work[#work + 1] = s.key
    for _, other in ipairs(in_the_way) do
      for _, d in ipairs(other.demands) do work[#work + 1] = d.key end
      end_ticket(other, 'replaced ' .. s.key)
    end
  end
  sit_down(t, home)
  if demand.conflict == 'cancel_running' then preempt(s, demand, work) end
  return true
end

local function hand_over(t)
  local demand = t.demands[t.home]
  serve_round(load(demand.key), demand, t.round)
  remove_ticket(t)
  if t.channel ~= '' and t.channel == own_channel then
    -- The waiter lives in the calling process: the reply tells it, so the slot is taken up.
    local token, due = grant(t, true)
    tell(t.channel, 'answer ' .. t.id .. ' granted ' .. int(token) .. ' ' .. int(due - now))
    return
  end
  -- Any other has to come for it. The request is kept until then: who does not come queues up
  -- again (S17).
  local token = grant(t, false)
  write_ticket(t)
  if t.durable then
    local s = load(t.demands[1].key)
    call('ZADD', offers_of(s), int(now + t.claim), s.key)
    call('PEXPIRE', offers_of(s), int(FOREVER / 1000))
    notice(t, 'granted ' .. int(token) .. ' ' .. int(t.claim))
  end
  tell(t.channel, 'answer ' .. t.id .. ' look')
end

-- Hands what is free on these keys to the waiters whose turn it is (S6).
local function serve(work)
  local budget = CHUNK
  while #work > 0 do
    local s = load(table.remove(work))
    while true do
      local member = first_in_queue(s)
      if not member then break end
      local t = read_ticket(s, string.sub(member, RANK + 1))
      if not t then -- cannot be; but a queue must not stop at a member without a ticket
        call('ZREM', s.queue, member)
        s.had_queue = false
        s.queued = s.queued - 1
        s.waiting = math.max(0, s.waiting - 1)
        s.changed = true
      else
        local home = t.demands[t.home]
        if s.paused or not fits(s, home) then break end -- a wide waiter blocks those behind (S8)
        if budget == 0 then -- the rest in a step of its own (S16)
          news[#news + 1] = 'more ' .. s.key
          break
        end
        budget = budget - 1
        local blocking, dead = {}, is_dead(s, t)
        for i, d in ipairs(t.demands) do
          if i ~= t.home then
            local other = load(d.key)
            if not fits(other, d) or stands_back(other, d, t.order, t.sequence) then
              blocking[#blocking + 1] = i
            end
          end
        end
        if dead then
          remove_ticket(t)
          for _, d in ipairs(t.demands) do
            if d.key ~= s.key then work[#work + 1] = d.key end
          end
        elseif #blocking == 0 then
          hand_over(t)
        else
          local refused_by = refusing(true, t.demands, blocking)
          if refused_by then
            local d = t.demands[refused_by]
            end_ticket(t, refusal(load(d.key), d, 'full'))
          else
            t.due = call('ZSCORE', s.ends, 't' .. t.id) -- moving is no renewal
            stand_up(t)
            take_place(t, blocking[1], work)
          end
        end
      end
    end
  end
end

-- Time -------------------------------------------------------------------------------------------

-- Removes a holder that did not ask for it, and tells it.
local function end_holder(h, loss)
  local first = load(keys_of(h.keys)[1])
  remove_holder(h)
  if h.claimed then
    call('SET', first.head .. ':ended:' .. h.id, 'lost ' .. loss, 'PX', REMEMBER)
    tell(h.channel, 'lost ' .. h.id .. ' ' .. loss)
  else
    call('HDEL', first.state, 't:' .. h.id)
    tell(h.channel, 'answer ' .. h.id .. ' look')
  end
end

-- Serves the next (S6); jobs that did not come for their slot keep their arrival order (S17).
local function pass_over(lapsed, freed)
  local again = {}
  for i, key in ipairs(freed) do again[i] = key end
  serve(freed)
  for _, t in ipairs(lapsed) do
    add_ticket(t)
    sit_down(t, 1)
  end
  if #lapsed > 0 then serve(again) end
end

-- Drops what ended on a key (S2), a chunk at most (S16).
local function reap(s)
  if s.reaped_at == now or not s.exists then return end
  s.reaped_at = now
  local ended = call('ZRANGEBYSCORE', s.ends, '-inf', int(now), 'LIMIT', 0, CHUNK)
  if #ended == 0 then return end
  s.unreaped = #ended == CHUNK
  if s.unreaped then news[#news + 1] = 'more ' .. s.key end
  local freed, lapsed = {}, {}
  for _, member in ipairs(ended) do
    local id = string.sub(member, 2)
    if string.sub(member, 1, 1) == 't' then
      local t = read_ticket(s, id)
      if t then
        remove_ticket(t)
        for _, d in ipairs(t.demands) do freed[#freed + 1] = d.key end
      else
        call('ZREM', s.ends, member)
        s.had_ends = false
      end
    else
      local h = read_holder(s, id)
      if h then
        for _, key in ipairs(keys_of(h.keys)) do freed[#freed + 1] = key end
        local t = not h.claimed and read_ticket(load(keys_of(h.keys)[1]), id)
        if t and t.durable then
          remove_holder(h)
          lapsed[#lapsed + 1] = t
        else
          end_holder(h, (h.ends > 0 and h.ends <= now) and 'overran' or 'expired')
        end
      else
        call('ZREM', s.ends, member)
        s.had_ends = false
      end
    end
  end
  pass_over(lapsed, freed)
end

-- Returns the holder and the ticket of an id that are still there once all its keys are reaped.
local function member(s, id)
  reap(s)
  local h = read_holder(s, id)
  local t = not (h and h.claimed) and read_ticket(s, id) or nil
  local keys = {}
  if h then
    keys = keys_of(h.keys)
  elseif t then
    for i, demand in ipairs(t.demands) do keys[i] = demand.key end
  end
  if #keys > 1 then
    for _, key in ipairs(keys) do reap(load(key)) end
    h = read_holder(s, id)
    t = not (h and h.claimed) and read_ticket(s, id) or nil
  end
  return h, t
end
