-- Fetch jobs, as arq's `Worker.start_jobs` does, and read all that admission needs.
-- KEYS: the queue, the set of aborts, then for each job: in-progress, job, retry, and the ticket
--   with which it was parked, which is deleted.
-- ARGV: now (ms), life of in-progress (ms), the age (ms) from which that is the mark of a dead
--   worker, or "", then for each job: its id, its new score or "".
-- Reply: for each job {0} it is gone, {2} a worker runs it, {3} it is not due, or
--   {1, score, job or false, its life (ms), tries or false, score of its abort or false,
--   its ticket or false}.
local replies = {}
for i = 1, (#KEYS - 2) / 4 do
  local running, job, retry, ticket = unpack(KEYS, 4 * i - 1, 4 * i + 2)
  local id, moved = ARGV[2 * i + 2], ARGV[2 * i + 3]
  local score = redis.call("ZSCORE", KEYS[1], id)
  local left = redis.call("PTTL", running)
  local stale = tonumber(ARGV[3]) and ARGV[2] - left > tonumber(ARGV[3])
  if not score then
    replies[i] = {0}
  elseif left ~= -2 and not stale then
    replies[i] = {2}
  else
    if moved ~= "" then
      redis.call("ZADD", KEYS[1], "XX", moved, id)
      score = moved
    end
    if tonumber(score) > tonumber(ARGV[1]) then
      replies[i] = {3}
    else
      redis.call("SET", running, "1", "PX", ARGV[2])
      replies[i] = {
        1, score, redis.call("GET", job), redis.call("PTTL", job),
        redis.call("GET", retry), redis.call("ZSCORE", KEYS[2], id), redis.call("GET", ticket)
      }
      if replies[i][7] then redis.call("DEL", ticket) end
    end
  end
end
return replies
