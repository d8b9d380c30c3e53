-- Park a delivery in Docket's own queue: acknowledged, and due again later, in one step.
--
-- The message goes as it came, so its `when`, attempt and trace context stay. Leaves the layout that
-- Docket's own schedule.lua leaves when it reschedules a message, and a note with the run: `limiter`,
-- which ticket it waits under, and on which keys.
--
-- KEYS   the docket's stream and queue; the task's parked data and run
-- ARGV   task key; `when` of the message, as a date and as a number; worker group; id and generation
--        of the message; since when its worker has it; when to come back, in seconds since the epoch;
--        the note; state channel and event
-- reply  "parked" | "offered": parked, but its slot came free meanwhile, and it is to be woken
--        | "cancelled": the task was cancelled meanwhile, its message is still there
--        | "moved": another delivery of it goes on under its ticket
--        | "gone": the message is not there, or a newer run has the key
-- cost   O(log n)

local stream, queue, parked, runs = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local key, when, wanted, group, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local generation, since, at, note = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]

local function run(field) return redis.call('HGET', runs, field) or '' end
local function acknowledge()
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
end

local state = run('state')
local ours = tonumber(run('when')) == tonumber(wanted)
local elsewhere = ours and (state == 'scheduled' or state == 'queued' or state == 'running')
local found = redis.call('XRANGE', stream, id, id)[1]
if not found then return elsewhere and 'moved' or 'gone' end
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
local fields, changed = found[2], { 'state', 'scheduled', 'known', at, 'limiter', note }
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
redis.call('PUBLISH', ARGV[10], ARGV[11])
return offered and 'offered' or 'parked'
