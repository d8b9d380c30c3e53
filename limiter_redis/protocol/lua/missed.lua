-- Repeat the notices of the slots that jobs of a gate were handed and have not claimed: they were
-- sent while no process of the gate may have been subscribed, and a notice is sent once.
--
-- operation  "missed" and "=" and the scope ("-": the keys without one), the name of the gate, and
--            how many keys to skip
-- reply      the number of keys that were looked at; if it is CHUNK or more there may be more
-- cost       O(CHUNK) keys on which jobs wait or were handed a slot; where no slot is unclaimed it
--            is that of reading a key's numbers

function steps.missed(w)
  local common, name = state.common_of(match(w[2], '^=(.*)') or ''), w[3]
  local keys = call('ZRANGE', common .. ':offers', w[4], w[4] + CHUNK - 1)
  for _, key in ipairs(keys) do
    local s = state.load(key)
    if s.offered > 0 then steps.repeat_notices(s, name) end
  end
  return tostring(#keys)
end

-- Of the first members of a key only (S16): what is not found is offered again after its claim time.
function steps.repeat_notices(s, name)
  state.write_ends(s)
  local ends = call('ZRANGE', s.ends, 0, CHUNK - 1, 'WITHSCORES')
  for i = 1, #ends, 2 do
    local left = tonumber(ends[i + 1]) - now
    local h = left > 0 and sub(ends[i], 1, 1) == 'h' and holders.read(s, sub(ends[i], 2))
    if h and not h.claimed and holders.keys_of(h.keys)[1] == s.key then
      local t = tickets.read(s, h.id)
      if t and t.name == name then
        state.notice(t, 'granted ' .. int(h.token) .. ' ' .. int(left))
      end
    end
  end
end

-- Repeat the notices of jobs of a gate whose waiting ended badly and which have not asked since:
-- the notice, or the reply with it, was lost.
--
-- operation  "refusals" and "=" and the scope ("-": the keys without one), the name of the gate, and
--            the cursor ("0": from the start)
-- reply      the next cursor, "0" at the end
-- cost       O(CHUNK) notices; most often there is none

function steps.refusals(w)
  local kept = state.common_of(match(w[2], '^=(.*)') or '') .. ':refusals'
  local found = call('HSCAN', kept, w[4], 'COUNT', CHUNK)
  for i = 1, #found[2], 2 do
    local id = found[2][i]
    local due, times, key, name, payload, answer =
      match(found[2][i + 1], '^(%d+) (%d+) (%S+) ([^|]*)|(%S+) (.*)$')
    if name == w[3] and tonumber(due) <= now then
      local t = { id = id, name = name, payload = payload, lease = 0 }
      times = times + 1
      if times < MOST_REPEATS then
        tickets.set_notice(kept, t, now + times * REPEAT_AFTER, times, key, answer)
      else
        call('HDEL', kept, id)
      end
      state.remember({ head = around(key) }, t, answer, true) -- for when it asks
      state.notice(t, answer, 'repeat')
    end
  end
  return found[1]
end
