-- Reap a key, and serve those who wait on it.
--
-- operation  "sweep" key
-- reply      microseconds to the next end, "-" if none is known

steps.sweep = function(w)
  local s = load(w[2])
  reap(s)
  serve({ s.key })
  return next_end(s)
end
