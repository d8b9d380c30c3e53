-- What an operator changes about a key: its limit, or whether it admits at all (S12).
--
-- operation  "configure", key, what ("limit", "pause"), value (a number, or false: as declared;
--            true or false)
-- reply      "1"

steps.configure = function(op)
  local s = load(op[2])
  reap(s)
  s.changed = true
  local field = op[3] == 'limit' and 'override' or 'paused'
  if op[3] == 'limit' then s.override = op[4] or nil else s.paused = op[4] end
  if op[4] == false then
    call('HDEL', s.state, field)
  else
    call('HSET', s.state, field, op[4] == true and '1' or op[4])
    s.written = true
  end
  outlive(s, now)
  serve({ s.key })
  return '1'
end
