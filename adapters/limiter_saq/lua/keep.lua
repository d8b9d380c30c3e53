-- Say that a job that was long at the gate is not forgotten there.
--
-- KEYS  saq's active
-- ARGV  the job's id, the job with the time of now
-- reply 1, or 0 if a sweep gave it to somebody else
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('SET', ARGV[1], ARGV[2])
return 1
