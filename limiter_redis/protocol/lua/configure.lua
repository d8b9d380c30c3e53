-- What an operator changes about a key: its limit, or whether it admits at all (S12); or about the
-- limits of a name (S22).
--
-- operation  "configure" key what ("limit", "pause") value (a number, or "-": as declared;
--            1 or "-")
--            "configure" key "policy" name policy cursor: judges the tickets of the key by a
--            policy; a chunk of them, from the cursor on, "0" at first
--            "configure" "-" "policy" name kind ("limit", "pause") value ("-": none) duration
--            (0: until it is reset), and for the log: action new by reason
--            "configure" "-" "log" action key name old new duration by reason
-- reply      "1"; the next cursor, "0" at the end; what was in force, and the time; the time

function steps.configure(w)
  if w[3] == 'log' then return policies.log(w, 4) end
  if w[3] == 'policy' then return (w[2] == '-' and policies.change or policies.apply)(w) end
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
