-- The state of a key.
--
-- operation  "inspect", key, number of waiters to show
-- reply      JSON: used, queued, override, paused, holders: list of {id, record, due},
--            waiters: list of tickets in order, now

steps.inspect = function(op)
  local s = load(op[2])
  reap(s)
  local holders, waiters = {}, {}
  for _, member in ipairs(call('ZRANGE', s.ends, 0, -1)) do
    if string.sub(member, 1, 1) == 'h' then
      local id = string.sub(member, 2)
      holders[#holders + 1] = {
        id, call('HGET', s.state, 'h:' .. id), call('ZSCORE', s.ends, member)
      }
    end
  end
  for _, member in ipairs(call('ZRANGE', s.queue, 0, op[3] - 1)) do
    waiters[#waiters + 1] = ticket_record(s, string.sub(member, RANK + 1)) or nil
  end
  return cjson.encode({
    used = s.used, queued = s.queued, override = s.override or false, paused = s.paused,
    holders = #holders > 0 and holders or false, waiters = #waiters > 0 and waiters or false,
    now = int(now)
  })
end
