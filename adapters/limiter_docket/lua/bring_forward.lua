-- Bring a parked task forward: from Docket's queue to its stream, if it is still parked.
--
-- KEYS   the docket's stream and queue; the task's parked data and run
-- ARGV   task key; the message that names the ticket; state channel and event
-- reply  "woken", and its generation | "queued": it is on its way to a worker
--        | "running", and since when: a worker has it, and will ask for its slot if it is well
--        | "gone": nobody waits under this ticket any more
-- cost   O(log n)

local stream, queue, parked, runs = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local key, name, channel, event = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

if redis.call('HGET', parked, 'limiter') == name and redis.call('ZREM', queue, key) == 1 then
  local fields, message, generation = redis.call('HGETALL', parked), {}, ''
  for i = 1, #fields, 2 do
    if fields[i] == 'generation' then generation = fields[i + 1] end
    if fields[i] ~= 'limiter' then
      message[#message + 1] = fields[i]
      message[#message + 1] = fields[i + 1]
    end
  end
  local id = redis.call('XADD', stream, '*', unpack(message))
  redis.call('DEL', parked)
  redis.call('HSET', runs, 'state', 'queued', 'stream_id', id)
  redis.call('PUBLISH', channel, event)
  return { 'woken', generation }
end

-- It was parked under this ticket and has not been parked or replaced since, or not yet parked.
local note = (redis.call('HGET', runs, 'generation') or '') .. ' ' .. name .. ' '
local ours = string.sub(redis.call('HGET', runs, 'limiter') or '', 1, #note) == note
if not ours and #redis.call('XRANGE', stream, name, name) == 0 then return { 'gone' } end
local state = redis.call('HGET', runs, 'state')
if state == 'queued' then return { 'queued' } end
if state == 'running' then return { 'running', redis.call('HGET', runs, 'started_at') or '' } end
return { 'gone' }
