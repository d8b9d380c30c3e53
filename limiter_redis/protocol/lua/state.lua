-- The state of a key while a call lasts: read once, changed here, written once (`save_all`).
--
-- The rules S1 to S19 are those of limiter_core/store.py; the layout is shown in
-- docs/redis-layout.md. Names that are not defined here stand in entry.lua.

local function general()

local CHUNK = 128
local FOREVER = 604800000000 -- how long a durable ticket is kept: 7 days
local UNKNOWN = 60000000 -- when to look at a key of which no end is known
local REMEMBER = 60000 -- milliseconds that a bad end is remembered; at least two leases
local ARGUMENTS = 1000 -- of one command at the most: Lua cannot pass on more than 8,000

-- The namespace, if it is a prefix of all names; else it stands inside of their hash tags.
local prefix = match(opening, '^(.*):{$')

local news = {} -- what others in the calling process have to hear
local presences = {} -- until when gates have a worker, by Redis key

-- Wakes the job of a durable ticket, whose id it is given as a word; returns whether it did. A queue
-- in the same Redis, and in a cluster in the same slot, puts its own in this place (`RedisStore.wake`).
local function wake(id) return false end

-- The functions of this file and of those that follow. To make them all takes Lua longer than most
-- calls last, so each is made when it is first asked for: `make`, which _script.py puts together
-- of them, does it by name.
local lazy = {}
local function functions_of(file) return setmetatable({ file }, lazy) end
local state, holders, tickets = functions_of('state'), functions_of('holders'), functions_of('tickets')
local presence = functions_of('presence')
local admission, turns = functions_of('admission'), functions_of('turns')
local steps = functions_of('steps') -- the operations

-- A word in place of a text that may be empty; back with `untext`.
function state.text(value) if value == '' then return '-' end return value end
function state.untext(value) if value == '-' then return '' end return value end

-- News: to the calling process in the reply, to any other by its channel. Processes that use a
-- cluster have names with an "s" in front, and listen at the node that has the tag of the step.
function state.tell(whom, line)
  if whom == '' then return end
  if whom == process then
    news[#news + 1] = line
  elseif string.sub(whom, 1, 1) == 's' then
    redis.pcall('SPUBLISH', (prefix or match(KEYS[1], '^{.-}')) .. ':process:' .. whom, line)
  else -- messages only hint
    redis.pcall('PUBLISH', (prefix or string.sub(opening, 2, -2)) .. ':process:' .. whom, line)
  end
end

-- Says that the waiting of a durable ticket has ended: to whoever ran the step, unless its job was
-- woken right here.
function state.notice(t, answer)
  local called, woken = pcall(wake, t.id)
  if called and woken then return end
  local name = t.name ~= '' and t.name .. '|' or ''
  news[#news + 1] = 'notice ' .. t.id .. ' ' .. name .. t.payload .. ' ' .. answer
end

-- Fields ------------------------------------------------------------------------------------------

-- Returns a field of a state, false if it is missing.
function state.get(s, field)
  local value = s.fields[field]
  if value == nil then
    value = s.kind == 'hash' and call('HGET', s.state, field)
    s.fields[field] = value
  end
  return value
end

-- Changes a field of a state; false removes it.
function state.set(s, field, value)
  s.fields[field] = value
  s.dirty[field] = true
  s.changed = true
end

-- Ends --------------------------------------------------------------------------------------------
--
-- Members of the ends are "h" (a holder) or "t" (a waiter) and the id. `s.first` is the earliest of
-- the ends, or, unless `s.sure`, a bound that no end lies before.

function state.set_end(s, member, due, is_new)
  s.ends_now[member] = due
  s.ends_changed, s.changed = true, true
  if due < s.first then
    s.first, s.sure = due, true
  elseif not is_new then
    s.sure = false
  end
end

function state.drop_end(s, member)
  s.ends_now[member] = false
  s.ends_changed, s.changed, s.sure = true, true, false
end

-- Writes changed members of a sorted set; returns whether some went. New ones come before old ones
-- go: a set that is never empty keeps its expiry.
function state.write_members(key, now_there, score_of)
  local added, removed = {}, {}
  for member, value in pairs(now_there) do
    if value then
      added[#added + 1] = score_of(value)
      added[#added + 1] = member
    else
      removed[#removed + 1] = member
    end
  end
  for i = 1, #added, ARGUMENTS do
    call('ZADD', key, unpack(added, i, math.min(#added, i + ARGUMENTS - 1)))
  end
  for i = 1, #removed, ARGUMENTS do
    call('ZREM', key, unpack(removed, i, math.min(#removed, i + ARGUMENTS - 1)))
  end
  return #removed > 0
end

function state.write_ends(s)
  if not s.ends_changed then return end
  if state.write_members(s.ends, s.ends_now, int) then s.had_ends = s.had_ends and s.saving end
  s.ends_now, s.ends_changed, s.written = {}, false, true
end

function state.end_of(s, member)
  local due = s.ends_now[member]
  if due ~= nil then return due end
  return tonumber(call('ZSCORE', s.ends, member) or nil)
end

-- The earliest end on a key, `math.huge` if there is none.
function state.first_end(s)
  if not s.sure then
    state.write_ends(s)
    local first = call('ZRANGE', s.ends, 0, 0, 'WITHSCORES')
    if not first[2] and s.used > 0 then -- cannot be, unless the server threw them away
      state.restore_ends(s)
      return state.first_end(s)
    end
    s.first = tonumber(first[2]) or math.huge
    s.sure = true
  end
  return s.first
end

-- Microseconds until the earliest known end on a key, "-" if none is known.
function state.next_end(s)
  if s.used == 0 and s.waiting == 0 then return '-' end
  local first = state.first_end(s)
  if first == math.huge then return '-' end
  return int(math.max(0, first - now))
end

-- The same for whoever waits: the last worker may go whose job is first in the queue.
function state.next_look(s)
  if s.recheck > 0 and s.recheck < state.first_end(s) then return int(math.max(0, s.recheck - now)) end
  return state.next_end(s)
end

-- Queue -------------------------------------------------------------------------------------------
--
-- It has a part for those who need no worker to be woken, `s.queue`, and one for the jobs of each
-- gate, in `s.lists` by the gate's name (S17): those of a gate without a worker are left out. What
-- ends in "*" is no part of the queue: jobs that were evicted, of which their gate has to hear.

local EVICTED = '*'

-- Makes a list, by the words of the field `gates` or for a first member.
function state.new_list(s, name, count)
  local evicted = string.sub(name, -1) == EVICTED
  s.lists = s.lists or {}
  s.lists[name] = {
    key = s.head .. ':jobs' .. s.rest .. '|' .. name, n = count, had = count > 0, now = {},
    evicted = evicted
  }
  if evicted then s.has_evicted = true end
  return s.lists[name]
end

function state.set_place(s, name, member, score)
  local change = score and 1 or -1
  s.changed, s.front = true, nil
  if name == '' then
    s.queue_now[member] = score
    s.queue_changed, s.queued = true, s.queued + change
    return
  end
  local list = s.lists and s.lists[name] or state.new_list(s, name, 0)
  list.n, list.now[member], list.changed = list.n + change, score, true
  s.lists_changed, s.gates_changed = true, true
  if not list.evicted then s.queued = s.queued + change end
end

-- Gives a member of the queue another score.
function state.move_place(s, name, member, score)
  local list = s.lists[name]
  list.now[member], list.changed = score, true
  s.lists_changed, s.changed, s.front = true, true, nil
end

function state.write_queue(s)
  if s.queue_changed then
    if state.write_members(s.queue, s.queue_now, tostring) then s.had_queue = s.had_queue and s.saving end
    s.queue_now, s.queue_changed, s.written = {}, false, true
  end
  if s.lists_changed then
    for _, list in pairs(s.lists) do
      if list.changed then
        if state.write_members(list.key, list.now, tostring) then list.had = list.had and s.saving end
        list.now, list.changed, s.written = {}, false, true
      end
    end
    s.lists_changed = false
  end
end

-- How many of those in the queue need no worker to be woken.
function state.unnamed(s)
  local count = s.queued
  for _, list in pairs(s.lists or {}) do
    if not list.evicted then count = count - list.n end
  end
  return count
end

-- The parts of the queue with a member that are not dormant, by name; the others if `dormant`.
function state.parts(s, dormant)
  local parts, unnamed = {}, s.queued
  for name, list in pairs(s.lists or {}) do
    if list.n > 0 and not list.evicted then
      unnamed = unnamed - list.n
      if (presence.lasts(s, name) > now) == not dormant then parts[name] = list end
    end
  end
  if unnamed > 0 and not dormant then parts[''] = { key = s.queue, n = unnamed } end
  return parts
end

-- How many wait in the queue and are not dormant.
function state.in_line(s)
  if not s.lists then return s.queued end
  local count = 0
  for _, part in pairs(state.parts(s)) do count = count + part.n end
  return count
end

-- The member that is served next, its score, and the name of its part; nil if nobody waits here.
function state.first_in_queue(s)
  if s.queued == 0 then return nil end
  local front = s.front
  if not front then
    if s.queue_changed or s.lists_changed then state.write_queue(s) end
    if s.lists then
      front = state.first_of_parts(s)
    else
      front = call('ZRANGE', s.queue, 0, 0, 'WITHSCORES')
      front[2], front[3] = tonumber(front[2]), ''
    end
    if front[1] == nil then -- cannot be, unless the server threw it away
      state.restore_queue(s)
      return state.first_in_queue(s)
    end
    s.front = front
  end
  return front[1] or nil, front[2], front[3]
end

function state.first_of_parts(s)
  local front, unnamed = { false }, s.queued
  local function compare(key, name)
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    local score, other = tonumber(first[2]), front[2]
    if not other or not score or score < other or (score == other and first[1] < front[1]) then
      front = { first[1], score, name }
    end
    return score
  end
  for name, list in pairs(s.lists) do
    if list.n > 0 and not list.evicted then
      unnamed = unnamed - list.n
      if presence.lasts(s, name) > now and not compare(list.key, name) then return {} end
    end
  end
  if unnamed > 0 and not compare(s.queue, '') then return {} end
  return front
end

-- Whether jobs of a gate wait here beside others, who go on when it has no worker any more.
function state.is_mixed(s)
  local parts, unnamed = 0, s.queued
  for _, list in pairs(s.lists) do
    if list.n > 0 and not list.evicted then parts, unnamed = parts + 1, unnamed - list.n end
  end
  return parts > 1 or (parts == 1 and unnamed > 0)
end

-- What a server that is short of memory threw away, while it kept the state: made anew of the
-- records there, with a whole lease for each.

local function records(s, kind)
  state.write_fields(s)
  local fields, found = call('HKEYS', s.state), {}
  for _, field in ipairs(fields) do
    if string.sub(field, 1, 2) == kind then found[#found + 1] = string.sub(field, 3) end
  end
  return found
end

function state.restore_ends(s)
  local used, offered = 0, 0
  for _, id in ipairs(records(s, 'h:')) do
    local h = holders.read(s, id)
    used, offered = used + h.cost, offered + (h.claimed and 0 or 1)
    state.set_end(s, 'h' .. id, holders.due_of(h, h.lease), true)
  end
  for _, id in ipairs(records(s, 't:')) do
    local t = tickets.read(s, id)
    if t and t.demands[t.home].key == s.key and not holders.read(s, id) then
      if not t.durable then state.set_end(s, 't' .. id, now + t.lease, true) end
      if t.deferred > 0 then state.set_end(s, 'd' .. id, t.deferred, true) end
    end
  end
  s.used, s.offered, s.had_ends, s.sure = used, offered, false, true
end

function state.restore_queue(s)
  s.queued, s.had_queue, s.lists, s.lists_changed, s.gates_changed = 0, false, nil, false, true
  for _, id in ipairs(records(s, 't:')) do
    local t = tickets.read(s, id)
    if t and t.demands[t.home].key == s.key and not holders.read(s, id) then
      state.set_place(s, t.part, tickets.member(t), tickets.score(t))
    end
  end
end

-- Keys --------------------------------------------------------------------------------------------

local NUMBERS = { 'used', 'waiting', 'queued', 'token', 'order', 'expires', 'fair', 'jobs', 'offered', 'recheck' }

function state.outlive(s, due)
  s.changed = true
  if due + GRACE > s.need then s.need = due + GRACE end
end

-- Returns the state of a key.
function state.load(key)
  local s = states[key]
  if s then return s end
  local head, rest = around(key)
  s = {
    key = key, head = head, rest = rest, common = rest ~= '' and head or state.common_of(''),
    state = head .. ':state' .. rest, ends = head .. ':ends' .. rest,
    queue = head .. ':queue' .. rest, need = 0, before = {}, fields = {}, dirty = {}, holders = {},
    tickets = {}, ends_now = {}, queue_now = {}, first = math.huge, sure = true
  }
  s.kind = call('TYPE', s.state).ok
  states[key] = s
  if s.kind == 'hash' then
    local m = call('HMGET', s.state, 'used', 'waiting', 'queued', 'token', 'order', 'expires', 'fair',
      'jobs', 'offered', 'recheck', 'override', 'paused', 'gates')
    for i, name in ipairs(NUMBERS) do
      s[name] = tonumber(m[i]) or 0
      s.before[name] = s[name]
    end
    s.override, s.paused = tonumber(m[11]), m[12] == '1'
    s.had_queue = s.queued > 0
    if m[13] then
      for name, count in string.gmatch(m[13], '(%S+) (%d+)') do state.new_list(s, name, tonumber(count)) end
      s.had_queue = state.unnamed(s) > 0
    end
    s.had_ends = s.used > 0
    s.was_kept = s.override or s.paused or false
    s.first, s.sure = 0, false
    return s
  end
  if s.kind ~= 'string' and s.kind ~= 'none' then error('WRONGTYPE ' .. s.state) end
  for _, name in ipairs(NUMBERS) do s[name], s.before[name] = 0, 0 end
  s.paused = false
  if s.kind == 'string' then
    holders.adopt(s, call('GET', s.state))
    s.changed = false -- it keeps its form unless something changes
  end
  return s
end

-- What begins the names of all that is kept for the durable tickets of a scope together; keys
-- without a scope share it.
function state.common_of(scope)
  if scope ~= '' then return opening .. scope .. '}' end
  return prefix or string.sub(opening, 1, -2) .. '}'
end

-- When somebody has to look at a key on which a durable ticket waits.
function state.next_due(s)
  local first = state.first_end(s)
  if s.recheck > 0 and s.recheck < first and state.is_mixed(s) then return s.recheck end
  return first
end

-- Notes when to look at a key; at the latest in a minute. The index of the keys on which a durable
-- ticket waits, or was handed a slot, has these times as scores (S17).
function state.note(s, at)
  local index = s.common .. ':offers'
  call('ZADD', index, 'LT', int(math.min(at, now + UNKNOWN)), s.key)
  call('PEXPIRE', index, int(FOREVER / 1000))
end

-- Keeps for a while how a request ended, for when it asks: at least until its next renewal.
function state.remember(s, r, how)
  call('SET', s.head .. ':ended:' .. r.id, how, 'PX', int(math.max(REMEMBER, r.lease / 500)))
end

function state.write_fields(s)
  if s.kind == 'string' then call('DEL', s.state) end
  local written, removed = {}, {}
  for _, name in ipairs(NUMBERS) do
    if s[name] ~= s.before[name] then
      written[#written + 1] = name
      written[#written + 1] = int(s[name])
      s.before[name] = s[name]
    end
  end
  if s.gates_changed then
    local gates = ''
    for name, list in pairs(s.lists or {}) do
      if list.n > 0 then gates = gates .. name .. ' ' .. list.n .. ' ' end
    end
    s.fields.gates, s.dirty.gates, s.gates_changed = gates ~= '' and gates, true, false
  end
  for field in pairs(s.dirty) do
    local value = s.fields[field]
    if value then
      written[#written + 1] = field
      written[#written + 1] = value
    else
      removed[#removed + 1] = field
    end
  end
  for i = 1, #written, ARGUMENTS do
    call('HSET', s.state, unpack(written, i, math.min(#written, i + ARGUMENTS - 1)))
  end
  if s.kind == 'hash' then
    for i = 1, #removed, ARGUMENTS do
      call('HDEL', s.state, unpack(removed, i, math.min(#removed, i + ARGUMENTS - 1)))
    end
  end
  s.dirty, s.kind, s.written = {}, 'hash', true
end

-- Writes what changed, drops keys that nobody uses (S14), sets expiries that no member outlives.
function state.save_all()
  for _, s in pairs(states) do
    if s.changed then
      if s.used == 0 and s.waiting == 0 and not s.override and not s.paused then
        if s.kind ~= 'none' or s.written then
          call('DEL', s.state, s.ends, s.queue)
          for _, list in pairs(s.lists or {}) do call('DEL', list.key) end
        end
      else
        local was_new = s.kind ~= 'hash'
        s.saving = true
        local longer = s.need > s.expires
        -- Longer than needed, so that the next steps need not say it again.
        if longer then s.expires = s.need + GRACE end
        state.write_ends(s)
        state.write_queue(s)
        state.write_fields(s)
        local at = int(s.expires / 1000)
        local kept = s.override or s.paused
        -- An operator's word stays for ever, and so must all that belongs to it.
        local renewed = longer or (s.was_kept and not kept)
        local persisted = kept and not s.was_kept
        local function expire(key, existed)
          if kept then
            if persisted then call('PERSIST', key) end
          elseif renewed or not existed then
            call('PEXPIREAT', key, at)
          end
        end
        expire(s.state, not was_new)
        expire(s.ends, s.had_ends)
        if s.lists then
          expire(s.queue, s.had_queue or state.unnamed(s) == 0)
          for _, list in pairs(s.lists) do expire(list.key, list.had or list.n == 0) end
        else
          expire(s.queue, s.had_queue or s.queued == 0)
        end
      end
    end
  end
end

-- The number by which a demand is judged (S12).
function state.limit_of(s, demand) return s.override or demand.limit end

function state.fits(s, demand) return s.used + demand.cost <= state.limit_of(s, demand) end
