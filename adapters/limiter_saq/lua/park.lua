-- Park a job that has to wait: SAQ's own "scheduled", at a time far ahead.
--
-- KEYS  saq's incomplete, active
-- ARGV  the job's id, when it comes back by itself (seconds since the epoch), the job
-- reply 1, or 0 if the job is gone; one that was parked or put back meanwhile is left where it is
local mine = redis.call('LREM', KEYS[2], 1, ARGV[1]) > 0
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if mine then
  redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
  redis.call('SET', ARGV[1], ARGV[3])
end
return 1
