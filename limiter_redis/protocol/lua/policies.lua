-- Policies: what an operator says of the limits of a name (S22), and the log of changes (S23).
--
-- In the hash `:policies` of the namespace, by the name, and for a pause by the name and "|":
--
--   value ("3", "50%", "paused") end (0: none) since by reason
--
-- With a call and in the record of a ticket the limit is "number|declared|policy|name" (with a call
-- without the name, which stands elsewhere). The policy is "-", or "pause,value,end": the end of its
-- pause (0: none; "-": it is not paused), and the value and the end of its limit. `number` is what
-- follows of it; a step makes it anew, so that a policy ends by the clock of the server.

local LOGGED, YEAR = 100, 31536000000

function policies.read(d, given)
  local _, declared, spec, name = match(given, '^(%d+)|(%d+)|([^|]*)|?(.*)$')
  d.declared, d.spec = tonumber(declared or given), spec or '-'
  d.name = name ~= '' and name or nil
  return policies.judge(d)
end

-- Sets the number by which a demand is judged, and when that changes by itself.
function policies.judge(d)
  d.limit, d.ends = d.declared, nil
  if d.spec == '-' or d.cost > d.declared and d.declared > 0 then return d end
  local pause, value, ends = match(d.spec, '^([^,]*),([^,]*),([^,]*)$')
  pause, ends = tonumber(pause), tonumber(ends)
  if value ~= '-' and (ends == 0 or ends > now) then
    local share = match(value, '^(%d+)%%$')
    d.limit = share and math.ceil(d.declared * share / 100) or tonumber(value)
    if ends > 0 then d.ends = ends end
  end
  if pause and (pause == 0 or pause > now) then
    d.limit = 0
    if pause > 0 then d.ends = math.min(d.ends or pause, pause) end
  end
  if d.limit < d.cost then d.limit = 0 end -- it waits, as below an override
  return d
end

-- The limit of a demand as a ticket has it.
function policies.word(d)
  if not d.name or d.name == '-' then return int(d.limit) end
  return int(d.limit) .. '|' .. int(d.declared) .. '|' .. d.spec .. '|' .. d.name
end

-- Judges a ticket by the policy of a name; if that is another one, and the ticket waits, its keys
-- are to be served (`work`).
function policies.judge_by(t, name, spec, work)
  local changed = false
  for _, d in ipairs(t.demands) do
    if d.name == name and d.spec ~= spec then
      d.spec, changed = spec, true
      policies.judge(d)
    end
  end
  if not changed then return end
  tickets.write(t)
  if not work then return end
  policies.note_end(state.load(t.demands[t.home].key), t)
  for _, d in ipairs(t.demands) do work[#work + 1] = d.key end
end

-- Whether a policy may end by itself by which a ticket was judged.
function policies.is_timed(t)
  for _, d in ipairs(t.demands) do
    if d.spec ~= '-' and find(d.spec, '%d%d%d') then return true end
  end
  return false
end

-- Notes on the key where a ticket sits when the next policy ends by which it is judged.
function policies.note_end(s, t, is_new)
  local ends
  for _, d in ipairs(t.demands) do
    if d.ends then ends = math.min(ends or d.ends, d.ends) end
  end
  if ends then
    state.set_end(s, 'p' .. t.id, ends, is_new)
    if t.durable then state.note(s, ends) end
  elseif not is_new then
    state.drop_end(s, 'p' .. t.id)
  end
end

-- A chunk of the tickets of a key: see configure.lua.
function policies.apply(w)
  local s = state.load(w[2])
  if s.waiting == 0 and s.offered == 0 then return '0' end
  state.write_fields(s) -- another operation of this call may have put a ticket there
  local found = call('HSCAN', s.state, w[6], 'MATCH', 't:*', 'COUNT', CHUNK)
  local records, work = found[2], {}
  for i = 1, #records, 2 do
    local id = sub(records[i], 3)
    local t = sub(records[i + 1], 1, 1) ~= '@' and tickets.read(s, id)
    if t then -- one that was offered its slot waits by it again if it does not come
      local waits = not t.evicted and not holders.read(s, id)
      policies.judge_by(t, w[4], w[5], waits and work or nil)
    end
  end
  turns.reap(s) -- it serves, so all are judged before
  turns.serve(work)
  return found[1]
end

function policies.all(hash)
  local fields = call('HKEYS', hash)
  if #fields == 0 then return {}, {} end
  return fields, call('HMGET', hash, unpack(fields))
end

function policies.change(w)
  local hash = state.common_of('') .. ':policies'
  local field = w[4] .. (w[5] == 'pause' and '|' or '')
  local before, last = '-', 0
  local ends = w[7] ~= '0' and int(now + w[7]) or '0'
  if w[6] ~= '-' then last = tonumber(ends) > 0 and tonumber(ends) or math.huge end
  local fields, values = policies.all(hash)
  for i, each in ipairs(fields) do
    local value, due = match(values[i], '^(%S+) (%d+)')
    due = tonumber(due) > 0 and tonumber(due) or math.huge
    if due <= now then
      call('HDEL', hash, each)
    elseif each == field then
      before = value
    else
      last = math.max(last, due)
    end
  end
  if w[6] == '-' then
    call('HDEL', hash, field)
  else
    call('HSET', hash, field, w[6] .. ' ' .. ends .. ' ' .. int(now) .. ' ' .. w[10] .. ' ' .. w[11])
  end
  if last == math.huge then
    call('PERSIST', hash)
  else
    call('PEXPIREAT', hash, int((math.max(last, now) + GRACE) / 1000))
  end
  policies.log({ w[8], '-', w[4], before, w[9], w[7], w[10], w[11] }, 1)
  local database = match(process, '^%d+:')
  if database then -- in a cluster all processes look often
    redis.pcall('PUBLISH', (prefix or sub(opening, 2, -2)) .. ':process:' .. database .. 'all', 'policies')
  end
  return before .. ' ' .. int(now)
end

-- Adds a change to the log; a user without the right to do so can still make the change.
function policies.log(w, first)
  local list = state.common_of('') .. ':changes'
  local added = redis.pcall('LPUSH', list, int(now) .. ' ' .. table.concat(w, ' ', first, first + 7))
  if type(added) == 'number' then
    redis.pcall('LTRIM', list, 0, LOGGED - 1)
    call('PEXPIRE', list, YEAR)
  end
  return int(now)
end

function policies.show(what)
  local common, shown = state.common_of(''), {}
  if what == 'changes' then
    for _, entry in ipairs(call('LRANGE', common .. ':changes', 0, LOGGED - 1)) do shown[#shown + 1] = entry end
  else
    local fields, values = policies.all(common .. ':policies')
    for i, field in ipairs(fields) do
      local ends = tonumber(match(values[i], '^%S+ (%d+)'))
      if ends == 0 or ends > now then shown[#shown + 1] = field .. ' ' .. values[i] end
    end
  end
  return table.concat({ int(now), unpack(shown) }, ';')
end
