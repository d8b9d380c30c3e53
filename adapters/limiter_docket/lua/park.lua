-- Park a delivery in Docket's own queue: acknowledged, and due again later, in one step.
--
-- The message goes as it came, so its `when`, attempt and trace context stay. Leaves the layout that
-- Docket's own schedule.lua leaves when it reschedules a message, and two notes of ours: which
-- message the ticket is named by, with the parked data and with the run.
--
-- KEYS   the docket's stream and queue; the task's parked data and run
-- ARGV   worker group; id and generation of the message; task key; name: the message that names the
--        ticket; when to come back, in seconds since the epoch; the ticket's keys, with spaces
--        between; state channel and event; since when the worker has it
-- reply  "parked" | "cancelled": the task was cancelled meanwhile, its message is still there
--        | "moved": another delivery of it goes on with the ticket
--        | "gone": the message is not there, or a newer run has the key
-- cost   O(log n)

local stream, queue, parked, runs = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, id, generation = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key, name, at, limits, channel, event = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]

local found = redis.call('XRANGE', stream, id, id)[1]
local state = redis.call('HGET', runs, 'state')
if not found then
  local note = (redis.call('HGET', runs, 'generation') or '') .. ' ' .. name .. ' '
  local ours = string.sub(redis.call('HGET', runs, 'limiter') or '', 1, #note) == note
  local goes_on = state == 'scheduled' or state == 'queued' or state == 'running'
  return ours and goes_on and 'moved' or 'gone'
end
if tonumber(redis.call('HGET', runs, 'generation') or '0') > generation then
  redis.call('XACK', stream, group, id)
  redis.call('XDEL', stream, id)
  return 'gone'
end
if state == 'cancelled' then return 'cancelled' end
if (redis.call('HGET', runs, 'started_at') or ARGV[10]) ~= ARGV[10] then return 'moved' end

redis.call('XACK', stream, group, id)
redis.call('XDEL', stream, id)
-- A later redelivery of the old message, if there is one under way, is superseded.
local next_generation = redis.call('HINCRBY', runs, 'generation', 1)
local fields = found[2]
local run = {
  'state', 'scheduled', 'known', at,
  'limiter', next_generation .. ' ' .. name .. ' ' .. limits,
}
for i = 1, #fields, 2 do
  local field = fields[i]
  if field == 'generation' then
    fields[i + 1] = tostring(next_generation)
  elseif field == 'function' or field == 'args' or field == 'kwargs' then
    run[#run + 1] = field
    run[#run + 1] = fields[i + 1]
  end
end
redis.call('HSET', parked, 'limiter', name, unpack(fields))
redis.call('ZADD', queue, at, key)
redis.call('HSET', runs, unpack(run))
redis.call('HDEL', runs, 'stream_id', 'worker', 'started_at')
redis.call('PUBLISH', channel, event)
return 'parked'
