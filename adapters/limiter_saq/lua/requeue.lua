-- Put a job back at the head of the queue, if it is still the one that was taken and never began.
--
-- KEYS  saq's active, queued
-- ARGV  the job's id, the job as it was seen, the job with the time of now
-- reply 1, or 0 if it was parked, began, ended or changed meanwhile
if redis.call('GET', ARGV[1]) ~= ARGV[2] then return 0 end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
redis.call('SET', ARGV[1], ARGV[3])
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
