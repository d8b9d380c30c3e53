-- Offer again what nobody claimed in time (S17).
--
-- operation  "offers" scope
-- reply      the number of keys that were looked at; if it is CHUNK there may be more

function steps.offers(w)
  local index = '{' .. namespace .. ':' .. w[2] .. '}:offers'
  local due = call('ZRANGEBYSCORE', index, '-inf', int(now), 'LIMIT', 0, CHUNK)
  for _, key in ipairs(due) do
    call('ZREM', index, key)
    local s = state.load(key)
    turns.reap(s)
    turns.serve({ key })
  end
  return tostring(#due)
end
