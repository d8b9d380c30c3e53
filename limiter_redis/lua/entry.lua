-- Where every call begins: time, names, and the short way for a key that nobody else uses.
--
-- KEYS     the state, ends and queue of every key that the operations name (see `names`); keys of
--          a waiter's other limits are derived, and share the hash tag by construction
-- ARGV[1]  namespace
-- ARGV[2]  the channel of the calling process, "" for none
-- ARGV[3]  JSON list of operations, each a list: its name, then what its file says
-- reply    list of strings: one per operation, then news (see `tell` in prelude.lua); fields
--          separated by spaces
-- time     server TIME; microseconds everywhere, milliseconds only in PEXPIREAT
-- cost     O(1) for a key that nobody else uses; else O(log n) per operation on a key with n
--          members. Everything that could be more is bounded by CHUNK
--
-- The pieces are put together in this order: entry, prelude, one file per step, run. All but this
-- one stand inside of a function that is made when it is needed: most calls do without.

local call = redis.call
local namespace, own_channel = ARGV[1], ARGV[2]
local GRACE = 60000000 -- keys outlive their last member by this much

local server_time = call('TIME')
local now = server_time[1] * 1000000 + server_time[2]

-- Numbers above 2^31 lose digits in Lua's own tostring.
local function int(number) return string.format('%.0f', number) end

-- The Redis keys of a limiter key. Its scope, or else itself, is the hash tag.
local function names(key)
  local slash = string.find(key, '/', 1, true)
  local tag, rest = key, ''
  if slash then
    tag, rest = string.sub(key, 1, slash - 1), ':' .. string.sub(key, slash + 1)
  end
  local head = '{' .. namespace .. ':' .. tag .. '}'
  return head .. ':state' .. rest, head .. ':ends' .. rest, head .. ':queue' .. rest, head
end

-- A single holder needs no index: its state is one hash, with its id in the field "sole" and the
-- end of its lease in "due". `load` in prelude.lua turns it into the general form when anybody
-- else comes. (Most keys never see a second one; this halves their memory and time.)

local function acquire_sole(op)
  local demands = op[13]
  local d = demands[1]
  local limit, cost = d[2], d[3]
  if #demands > 1 or op[8] or op[3] == 'look' or op[7] > 0 or cost > limit then return nil end
  local id, lease, hold = op[2], op[4], op[5]
  local state, _, _, head = names(d[1])
  if call('EXISTS', state, head .. ':ended:' .. id) > 0 then return nil end
  local token = op[3] == 'reclaim' and op[12] > 0 and op[12] or now
  local left, ends = lease, 0
  if hold > 0 then
    ends = now + hold
    if hold < left then left = hold end
  end
  local channel = (op[11] and own_channel ~= '') and own_channel or '-'
  local claimant = op[9] ~= '' and op[9] or '-'
  local since = int(now)
  local expires = now + left + GRACE
  local number = int(token)
  call('HSET', state, 'sole', id, 'due', int(now + left), 'used', cost, 'token', number,
    'expires', int(expires), 'h:' .. id, number .. ' ' .. cost .. ' ' .. limit .. ' ' .. since ..
    ' ' .. int(ends) .. ' ' .. int(lease) .. ' 1 0 ' .. channel .. ' ' .. claimant .. ' ' ..
    op[10] .. ' ' .. d[1])
  call('PEXPIREAT', state, int(math.ceil(expires / 1000)))
  return 'granted ' .. number .. ' ' .. int(left)
end

local function release_sole(op)
  local state = names(op[3])
  local sole = call('HMGET', state, 'sole', 'due')
  if sole[1] ~= op[2] or tonumber(sole[2]) <= now then return nil end
  call('DEL', state)
  return '1'
end

local short_ways = { acquire = acquire_sole, release = release_sole }

