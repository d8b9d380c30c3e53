-- Look at the jobs that workers took; one sweep at a time does.
--
-- KEYS  saq's lock of sweeps, active
-- ARGV  how long to keep the lock (s)
-- reply pairs of a job's id and the job, none if another sweep has the lock
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', ARGV[1]) then return {} end
local jobs = {}
for i, id in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  jobs[i] = {id, redis.call('GET', id)}
end
return jobs
