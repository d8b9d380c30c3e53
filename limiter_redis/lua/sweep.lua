-- Reap a key, and serve those who wait on it.
--
-- operation  "sweep" key
-- reply      microseconds to the next end, "-" if none is known

steps.sweep = function(w)
  local s = state.load(w[2])
  turns.reap(s)
  turns.serve({ s.key })
  return state.next_end(s)
end
