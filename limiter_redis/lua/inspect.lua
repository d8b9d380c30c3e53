-- The state of a key.
--
-- operation  "inspect" key waiters (how many to show)
-- reply      JSON: now, used, queued, override, paused, holders: list of {id, record, due},
--            waiters: list of {id, record} in order
-- cost       O(n) with n holders

function steps.inspect(w)
  local s = state.load(w[2])
  turns.reap(s)
  local holding, waiting = {}, {}
  local function show(member, due)
    local id = string.sub(member, 2)
    if string.sub(member, 1, 1) == 'h' then
      holding[#holding + 1] = { id, state.get(s, 'h:' .. id), due }
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
  for _, member in ipairs(call('ZRANGE', s.queue, 0, tonumber(w[3]) - 1)) do
    local id = string.sub(member, RANK + 1)
    local record = state.get(s, 't:' .. id)
    if record and string.sub(record, 1, 1) == '@' then
      record = state.get(state.load(string.sub(record, 2)), 't:' .. id)
    end
    if record then waiting[#waiting + 1] = { id, record } end
  end
  return cjson.encode({
    now = int(now), used = int(s.used), queued = s.queued,
    override = s.override and int(s.override) or false,
    paused = s.paused, holders = #holding > 0 and holding or false,
    waiters = #waiting > 0 and waiting or false
  })
end
