-- Bring a parked job forward: to the head of the queue, since its slot is kept for it.
--
-- KEYS  saq's incomplete, queued
-- ARGV  the job's id
-- reply 1, or 0 if the job is gone; one that is not parked is left where it is
local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not at then return 0 end
if tonumber(at) > 0 then
  redis.call('ZADD', KEYS[1], 0, ARGV[1])
  redis.call('LPUSH', KEYS[2], ARGV[1])
end
return 1
