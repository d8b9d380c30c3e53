-- Remove the lease or the ticket of an id, and hand on what came free (S5, S6, S15, S19).
--
-- operation  "release" id key (one of its keys)
-- reply      "1" if there was one, else "0"

function steps.release(w)
  local id, s = w[2], state.load(w[3])
  local h, t = turns.member(s, id)
  if h then
    local work = holders.keys_of(h.keys)
    holders.remove(h)
    if not h.claimed then tickets.forget(state.load(work[1]), id) end
    turns.serve(work)
    return '1'
  end
  if t then
    local work = {}
    for _, demand in ipairs(t.demands) do work[#work + 1] = demand.key end
    tickets.remove(t)
    turns.serve(work)
    return '1'
  end
  call('DEL', s.head .. ':ended:' .. id)
  return '0'
end

-- Remove what a release would, unless it is a lease that was taken up.
--
-- operation  "withdraw" id key (one of its keys)
-- reply      "1" if there was one, else "0"

function steps.withdraw(w)
  local h = turns.member(state.load(w[3]), w[2])
  if h and h.claimed then return '0' end
  return steps.release(w)
end
