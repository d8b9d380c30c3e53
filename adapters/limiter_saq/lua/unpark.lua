-- Take a parked job away, so that nobody wakes it while it is aborted.
--
-- KEYS  saq's incomplete
-- ARGV  the job's id
-- reply 1, or 0 if it was not parked
local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not at or tonumber(at) <= 0 then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
