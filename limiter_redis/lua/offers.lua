-- Look at the keys of a scope where it is time, for the durable tickets that wait there (S17).
--
-- operation  "offers" and "=" and the scope ("-": the keys without one)
-- reply      the number of keys that were looked at; if it is CHUNK there may be more
-- cost       O(log n) for each of them; keys where nothing is due cost nothing

function steps.offers(w)
  local index = state.index_of(match(w[2], '^=(.*)') or '')
  local due = call('ZRANGEBYSCORE', index, '-inf', int(now), 'LIMIT', 0, CHUNK)
  for _, key in ipairs(due) do
    call('ZREM', index, key)
    local s = state.load(key)
    turns.reap(s)
    turns.serve({ key })
    if s.jobs > 0 or s.offered > 0 then state.note(s, state.first_end(s)) end
  end
  return tostring(#due)
end
