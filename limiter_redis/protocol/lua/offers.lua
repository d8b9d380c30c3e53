-- Look at the keys of a scope where it is time, for the durable tickets that wait there (S17).
--
-- operation  "offers" and "=" and the scope ("-": the keys without one), or besides the worker that
--            looks: the name of its gate, its own, and "there" or "leaves"
-- reply      the number of keys that were looked at; if it is CHUNK or more there may be more
-- cost       O(log n) for each of them; keys where nothing is due cost nothing

function steps.offers(w)
  local common = state.common_of(match(w[2], '^=(.*)') or '')
  if w[3] then presence.see(common, w[3], w[4], w[5] == 'leaves') end
  local turned = presence.look_at_turned(common)
  local index = common .. ':offers'
  local due = call('ZRANGEBYSCORE', index, '-inf', int(now), 'LIMIT', 0, CHUNK)
  for _, key in ipairs(due) do
    call('ZREM', index, key)
    local s = state.load(key)
    s.noted = nil
    turns.reap(s)
    turns.serve({ key })
    if s.jobs > 0 or s.offered > 0 then state.note(s, state.next_due(s)) end
  end
  return tostring(math.max(turned, #due))
end
