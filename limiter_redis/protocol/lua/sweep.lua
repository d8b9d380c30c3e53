-- Reap a key, and serve its waiters.
--
-- operation  "sweep" key
-- reply      microseconds to the next end, "-" if none is known

function steps.sweep(w)
  local s = state.load(w[2])
  turns.reap(s)
  turns.serve({ s.key })
  return (s.recheck > 0 and state.next_look or state.next_end)(s)
end
