-- What every call needs: time, names, and the short ways for a key that no other uses.
--
-- KEYS     the state, ends and queue of every key that the operations name (see `around`); keys of
--          a waiter's other limits are derived, and share the hash tag by construction
-- ARGV[1]  opening: what stands in front of a scope, or a key without one, in all names; "{" and the
--          namespace and ":", or, if that is a prefix, the namespace and ":{" (see keyspace.py)
-- ARGV[2]  the calling process: the end of the name of its channel, which tells databases apart
-- ARGV[3]  and all that follow: an operation each, words with a space between: its name, then what
--          its file says. A word that would be empty is "-"
-- reply    one text of lines: one per operation, then news (see `state.notify`)
-- time     server TIME; microseconds everywhere, milliseconds only in expiries
-- cost     O(1) for a key that no other uses; else O(log n) per operation on a key with n
--          members. Everything that could be more is bounded by CHUNK
--
-- The pieces are put together in this order: entry, contended, what the steps share (state, ends,
-- queue, restore, presence, holders, tickets, policies, layout, admission, turns), one file per step,
-- run. All but the first two and run stand inside of a function that is made when it is needed: most calls do without.
--
-- As a script all this is made anew by each call. As a library of functions it is made by the first
-- one and stays, so what belongs to one call alone is set where that begins, in run.lua.

local call, match, format = redis.call, string.match, string.format
local find, sub, tonumber = string.find, string.sub, tonumber
local GRACE = 60000000 -- keys outlive their last member by this much
local CHUNK = 128
local TRACED = '%1F' -- in a label that carries a trace: its separator, in the form of a word

-- Of one call:
local keys, opening, process, now
local prefix -- the namespace, if it is a prefix of all names; else it stands inside of their hash tags
local states -- what the general part holds in memory, by key

-- What the short way of this operation found out: the type of a state and what it has, by its Redis
-- key; an id of which no bad end is kept.
local typed, its_type, its_fields, never_ended
local news -- messages to others in the calling process
local presences -- until when gates have a worker, by Redis key

-- Numbers of more than 14 digits lose some in Lua's own tostring.
local function int(number) return format('%d', number) end

-- What begins and what ends the names of a limiter key's Redis keys. Its scope, or else the key
-- itself, is the hash tag, unless the namespace has one.
local function around(key)
  local slash = find(key, '/', 1, true)
  if not slash then return opening .. key .. '}', '' end
  return opening .. sub(key, 1, slash - 1) .. '}', ':' .. sub(key, slash + 1)
end

-- A single holder needs no index: its state is one text, and not a hash. `load` in state.lua turns
-- it into the general form when anybody else comes. (Most keys never see a second one; this takes
-- a third of the memory and time.) Its words:
--
--   id due cost limit since token ends lease process claimant label name
--
-- The last one is left out if the limit has no name.

local ACQUIRE = '^acquire (%S+) (%l+) (%d+) (%d+) %d+ 0 %- (%S+) (%S+) (%d) (%d+)'
  .. ' (%S+) (%d+)(%S*) (%d+) %S+ %S+ %S+ %S+ (%S+)$'
local A_TIME = string.rep('%d', 12)

local acquire_contended -- see contended.lua

local function acquire_sole(op)
  local id, mode, lease, hold, claimant, label, live, token, key, limit, policy, cost, name =
    match(op, ACQUIRE)
  if not id or states[key] or mode == 'look' or tonumber(cost) > tonumber(limit) then return nil end
  if policy ~= '' and find(policy, A_TIME) then return nil end -- it may have ended by our clock
  local head, rest = around(key)
  local ended, state = head .. ':ended:' .. id, head .. ':state' .. rest
  local found = call('EXISTS', state, ended, ended) -- the one counts once, the other twice
  if found < 2 then never_ended = id end
  if found == 1 then
    return acquire_contended(op, head, rest, id, mode, lease, hold, claimant, label,
      live == '1' and process or '-', key, limit, cost, name)
  end
  if found > 1 then return nil end
  local since, left, ends = int(now), tonumber(lease), '0'
  if mode ~= 'reclaim' or token == '0' then token = since end
  if hold ~= '0' then
    ends = int(now + hold)
    left = math.min(left, hold)
  end
  local due = now + left
  local record = id .. ' ' .. int(due) .. ' ' .. cost .. ' ' .. limit .. ' ' .. since .. ' ' .. token
    .. ' ' .. ends .. ' ' .. lease .. ' ' .. (live == '1' and process or '-') .. ' ' .. claimant
    .. ' ' .. label .. (name == '-' and '' or ' ' .. name)
  call('SET', state, record, 'PXAT', int((due + GRACE) / 1000))
  return 'granted ' .. token .. ' ' .. int(left)
end

-- Returns the record and the Redis key of a key's single holder, nil if there is none.
local function sole_record(key)
  if states[key] then return nil end
  local head, rest = around(key)
  local state = head .. ':state' .. rest
  local kind = call('TYPE', state).ok
  typed, its_type = state, kind
  if kind ~= 'string' then return nil end
  return call('GET', state), state
end

-- Returns the Redis key and the record if this id is the key's single holder, and its lease lives.
local function sole(id, key)
  local record, state = sole_record(key)
  if not record then return nil end
  local holder, due = match(record, '^(%S+) (%d+)')
  if holder ~= id or tonumber(due) <= now then return nil end
  return state, record
end

local function release_sole(op)
  local id, key = match(op, '^release (%S+) (%S+)$')
  local state = id and sole(id, key)
  if not state then return nil end
  call('DEL', state)
  return '1'
end

local function renew_sole(op)
  local id, key = match(op, '^renew (%S+) (%S+)$')
  if not id then return nil end
  local state, record = sole(id, key)
  if not state then return nil end
  local owner, ends, lease, rest = match(record, '^%S+ %S+ (%S+ %S+ %S+ %S+) (%d+) (%d+) (.*)$')
  local due = now + lease
  if ends ~= '0' then due = math.min(due, tonumber(ends)) end
  record = id .. ' ' .. int(due) .. ' ' .. owner .. ' ' .. ends .. ' ' .. lease .. ' ' .. rest
  call('SET', state, record, 'PXAT', int((due + GRACE) / 1000))
  return 'alive'
end

-- Most keys that are looked at have a single holder, and are looked at again and again. The record is
-- decoded by the caller.
local function inspect_sole(op)
  local key = match(op, '^inspect (%S+) ')
  local record = key ~= '-' and sole_record(key)
  if not record then return nil end
  local due = match(record, '^%S+ (%d+) [%d ]+ %S+ %S+ %S+ ?%S*$')
  if not due or tonumber(due) <= now then return nil end
  return 'sole ' .. int(now) .. ' ' .. record
end

-- Nil if it takes the general way. So do all operations on a key that went there in this call.
local short_ways = {
  acquire = acquire_sole, release = release_sole, renew = renew_sole, inspect = inspect_sole
}

-- The words of a text. Those of the usual form, a pattern, are found at once, in half the time.
local function words_of(text, usual)
  local words = { match(text, usual) }
  if not words[1] then
    for word in string.gmatch(text, '%S+') do words[#words + 1] = word end
  end
  return words
end
