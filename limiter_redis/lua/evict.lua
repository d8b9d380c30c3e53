-- Take the slot back from a holder, who is told.
--
-- operation  "evict" id key (one of its keys)
-- reply      "1" if there was such a holder, else "0"

function steps.evict(w)
  local s = state.load(w[3])
  local h = holders.read(s, w[2]) and turns.member(s, w[2]) -- who still waits is not evicted
  if not h then return '0' end
  local work = holders.keys_of(h.keys)
  local t = not h.claimed and tickets.read(state.load(work[1]), h.id)
  if t and t.durable then -- a job that has not come for its slot yet is not lost
    holders.remove(h)
    turns.pass_over({ t }, work)
    return '1'
  end
  turns.finish(h, 'evicted')
  turns.serve(work)
  return '1'
end
