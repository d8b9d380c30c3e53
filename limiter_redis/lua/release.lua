-- Remove the lease or the ticket of an id, and hand on what came free (S5, S6, S15, S19).
--
-- operation  "release", id, key (one of its keys)
-- reply      "1" if there was one, else "0"

steps.release = function(op)
  local id, s = op[2], load(op[3])
  local h, t = member(s, id)
  if h then
    local work = keys_of(h.keys)
    remove_holder(h)
    if not h.claimed then call('HDEL', load(work[1]).state, 't:' .. id) end
    serve(work)
    return '1'
  end
  if t then
    local work = {}
    for _, demand in ipairs(t.demands) do work[#work + 1] = demand.key end
    remove_ticket(t)
    serve(work)
    return '1'
  end
  call('DEL', s.head .. ':ended:' .. id)
  return '0'
end
