-- Bring a parked task forward: from Docket's queue to its stream, if it waits there for this slot.
-- Called with the KEYS and ARGV of a script of its own, or by `wake` within the store's.
--
-- KEYS   the docket's stream and queue; the task's parked data and run
-- ARGV   task key; its `when`, in seconds since the epoch; state channel and event
-- reply  1: it is on its way to its slot | 0: nobody waits for it any more
-- cost   O(log n)

local function bring_forward(KEYS, ARGV)
  local stream, queue, parked, runs = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
  local key, when = ARGV[1], ARGV[2]

  if tonumber(redis.call('HGET', runs, 'when') or '') ~= tonumber(when) then return 0 end
  if redis.call('ZREM', queue, key) == 1 then
    local id = redis.call('XADD', stream, '*', unpack(redis.call('HGETALL', parked)))
    redis.call('DEL', parked)
    redis.call('HSET', runs, 'state', 'queued', 'stream_id', id)
    redis.call('PUBLISH', ARGV[3], ARGV[4])
    return 1
  end

  local state = redis.call('HGET', runs, 'state')
  if state == 'queued' then return 1 end
  if state ~= 'running' then return 0 end
  -- A worker has it: it asks for its slot next, or parks it, and finds this note. If it did neither
  -- until the slot is offered again, it is dead.
  if redis.call('HGET', runs, 'limiter-offered') == when then return 0 end
  redis.call('HSET', runs, 'limiter-offered', when)
  return 1
end
