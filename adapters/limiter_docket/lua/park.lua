-- Park a delivery in Docket's own queue: acknowledged, and due again later, in one step.
--
-- The message goes as it came, so its `when`, attempt and trace context stay. Leaves the layout that
-- Docket's own schedule.lua leaves when it reschedules a message, and a note with the run: `limiter`,
-- for which `when` it waits, and on which keys.
--
-- KEYS   the docket's stream and queue; the task's parked data and run
-- ARGV   task key; its `when`, in seconds since the epoch; state channel and event; worker group; id
--        and generation of the message; since when its worker has it; when to come back, in seconds
--        since the epoch; the note
-- reply  "parked" | "offered": parked, but its slot came free meanwhile, and it is to be woken
--        | "cancelled": the task was cancelled meanwhile, or `clear` took its message
--        | "moved": another delivery of it goes on under its ticket
--        | "gone": the message is not there, or a newer run has the key
-- cost   O(log n)

local stream, queue, parked, runs = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local key, when, group, id, generation = ARGV[1], ARGV[2], ARGV[5], ARGV[6], tonumber(ARGV[7])
local since, at, note = ARGV[8], ARGV[9], ARGV[10]

local function run(field) return redis.call('HGET', runs, field) or '' end
local function acknowledge()
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
end

local state = run('state')
local elsewhere = tonumber(run('when')) == tonumber(when)
  and (state == 'scheduled' or state == 'queued' or state == 'running')
local found = redis.call('XRANGE', stream, id, id)[1]
if not found then
  if state == 'running' and run('started_at') == since then return 'cancelled' end -- nobody else's
  return elsewhere and 'moved' or 'gone'
end
if (tonumber(run('generation')) or 0) > generation then
  acknowledge()
  return elsewhere and 'moved' or 'gone'
end
if state == 'cancelled' then return 'cancelled' end
local started_at = run('started_at')
if started_at ~= '' and started_at ~= since then return 'moved' end

acknowledge()
-- A later redelivery of the old message, if there is one under way, is superseded.
generation = redis.call('HINCRBY', runs, 'generation', 1)
local fields = found[2]
local changed = { 'state', 'scheduled', 'known', at, 'limiter', note }
for i = 1, #fields, 2 do
  local field = fields[i]
  if field == 'generation' then
    fields[i + 1] = tostring(generation)
  elseif field == 'function' or field == 'args' or field == 'kwargs' then
    changed[#changed + 1] = field
    changed[#changed + 1] = fields[i + 1]
  end
end
redis.call('HSET', parked, unpack(fields))
redis.call('ZADD', queue, at, key)
redis.call('HSET', runs, unpack(changed))
local offered = run('limiter-offered') == when
redis.call('HDEL', runs, 'stream_id', 'worker', 'started_at', 'limiter-offered')
redis.call('PUBLISH', ARGV[3], ARGV[4])
return offered and 'offered' or 'parked'
