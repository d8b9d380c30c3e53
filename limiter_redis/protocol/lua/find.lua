-- Whether a key knows an id, as a holder or as a ticket.
--
-- operation  "find" id key
-- reply      "1" or "0"

function steps.find(w)
  local s = state.load(w[3])
  return (state.get(s, 'h:' .. w[2]) or state.get(s, 't:' .. w[2])) and '1' or '0'
end
