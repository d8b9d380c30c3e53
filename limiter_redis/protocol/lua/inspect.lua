-- The state of a key.
--
-- operation  "inspect" key waiters (how many to show); or "inspect" "-" and "policies" or "changes":
--            what is kept for all keys, see policies.lua; or "-" "layout" number release, see layout.lua
-- reply      "sole", now, and the record, if there is one holder alone (entry.lua). Else JSON: now,
--            used, queued, override, paused, name ("-": none), holders: list of {id, record, due},
--            waiters: list of {id, record} in order, dormant: list of {name, until when it had a
--            worker, number, list of {id, record}}
-- cost       O(n) with n holders
-- rights     a caller that may not write sees what is there: what has ended is left to others

function steps.inspect(w)
  if w[2] == '-' and w[3] == 'layout' then return state.agreed_layout(w[4] .. ' ' .. w[5]) end
  if w[2] == '-' then return policies.show(w[3]) end
  local s = state.load(w[2])
  local may_write = state.first_end(s) > now or type(redis.pcall('DEL', keys[1] .. '}:nothing')) == 'number'
  if may_write then turns.reap(s) end
  local holding, ended = {}, 0
  local function show(member, due)
    local id = sub(member, 2)
    if sub(member, 1, 1) == 'h' then
      local record = state.get(s, 'h:' .. id)
      if may_write or tonumber(due) > now then
        holding[#holding + 1] = { id, record, due }
      else
        ended = ended + (tonumber(match(record or '', '^%S+ (%d+)') or 0))
      end
    end
  end
  if s.kind == 'string' then -- a single holder stays one
    for member, due in pairs(s.ends_now) do
      if due then show(member, int(due)) end
    end
  else
    state.write_ends(s)
    local ends = call('ZRANGE', s.ends, 0, -1, 'WITHSCORES')
    for i = 1, #ends, 2 do show(ends[i], ends[i + 1]) end
  end
  state.write_queue(s)
  local shown = tonumber(w[3])
  local waiting = steps.first_waiters(s, state.parts(s), shown)
  local dormant = {}
  for name, part in pairs(state.parts(s, true)) do
    dormant[#dormant + 1] = {
      name, int(presence.lasts(s, name)), part.n, steps.first_waiters(s, { [name] = part }, shown)
    }
  end
  return cjson.encode({
    now = int(now), used = int(s.used - ended), queued = state.in_line(s),
    override = s.override and int(s.override) or false,
    paused = s.paused, name = state.is_unused(s) and '-' or s.name, holders = #holding > 0 and holding or false,
    waiters = #waiting > 0 and waiting or false, dormant = #dormant > 0 and dormant or false
  })
end

-- The first waiters in parts of a queue, in order: list of {id, record}.
function steps.first_waiters(s, parts, count)
  local found = {}
  for _, part in pairs(parts) do
    local members = call('ZRANGE', part.key, 0, count - 1, 'WITHSCORES')
    for i = 1, #members, 2 do found[#found + 1] = { members[i], tonumber(members[i + 1]) } end
  end
  table.sort(found, function(a, b) return a[2] < b[2] or (a[2] == b[2] and a[1] < b[1]) end)
  local waiters = {}
  for i = 1, math.min(#found, count) do
    local id = sub(found[i][1], RANK + 1)
    local record = state.get(s, 't:' .. id)
    if record and sub(record, 1, 1) == '@' then
      record = state.get(state.load(sub(record, 2)), 't:' .. id)
    end
    if record then waiters[#waiters + 1] = { id, record } end
  end
  return waiters
end
