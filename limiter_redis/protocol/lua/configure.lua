-- What an operator changes about a key: its limit, or whether it admits at all (S12).
--
-- operation  "configure" key what ("limit", "pause") value (a number, or "-": as declared;
--            1 or "-")
-- reply      "1"

function steps.configure(w)
  local s = state.load(w[2])
  turns.reap(s)
  state.note_name(s, '-')
  local value = w[4] ~= '-' and w[4]
  if w[3] == 'limit' then
    s.override = tonumber(value or nil)
    state.set(s, 'override', value)
  else
    s.paused = value == '1'
    state.set(s, 'paused', value)
  end
  state.outlive(s, now)
  turns.serve({ s.key })
  return '1'
end
