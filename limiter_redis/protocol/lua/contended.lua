-- Short ways on a key that others use, for what calls ask most often there: to claim a slot that was
-- handed over, and to wait. They write what the general way would (acquire.lua, tickets.lua), and are
-- taken only where that has nothing else to do: the request is for this key alone and is no job; no
-- member of the key has ended, none is a job of a gate or of a fair group; no key lives too short.
-- What was read is left to the general way. Nil if it is taken.

-- What a state has, and what it has of a request.
local function read_state(name, id)
  return call('HMGET', name, 'used', 'waiting', 'queued', 'token', 'order', 'expires', 'fair', 'jobs',
    'offered', 'recheck', 'override', 'paused', 'gates', 'name', 'h:' .. id, 't:' .. id)
end

local UNCLAIMED = '^(%S+)( %S+ %S+ %S+) 0 (%S+) 0 (%d) %S+ %S+ (%S+) %-$' -- of a holder
local PLAIN = '^%S+ %S+ %S+ %S+ %S+ (%d+) .* (%d+) %d+ queue (%-?%d+) %- %-1 %S+$' -- of an operation

local function number(text) return tonumber(text or 0) or 0 end

-- As steps.blocker.
local function oldest_label(state, ends)
  local noted, id = match(call('HGET', state, 'oldest') or '', '^(%d+) (.+)$')
  local record = id and call('HGET', state, 'h:' .. id)
  local its_token, its_label = match(record or '', '^(%d+) .* (%S+) %S+$')
  if its_token and its_token == noted then return its_label end
  local oldest, found = nil, '-'
  for _, member in ipairs(call('ZRANGE', ends, 0, CHUNK - 1)) do
    if sub(member, 1, 1) == 'h' then
      local token, label = match(call('HGET', state, 'h:' .. sub(member, 2)) or '', '^(%d+) .* (%S+) %S+$')
      token = tonumber(token)
      if token and (not oldest or token < oldest) then oldest, found = token, label end
    end
  end
  return found
end

function acquire_contended(op, head, rest, id, mode, lease, hold, claimant, label, process, key, limit, cost, name)
  local state = head .. ':state' .. rest
  typed, its_type = state, call('TYPE', state).ok
  if its_type ~= 'hash' then return nil end
  local m = read_state(state, id)
  its_fields = m
  if m[13] or number(m[10]) ~= 0 then return nil end
  local used, queued, expires = number(m[1]), number(m[3]), number(m[6])
  local is_claim, ends, due = m[15], head .. ':ends' .. rest, now + lease
  if not is_claim and (mode ~= 'wait' or m[16]) then return nil end
  local first = tonumber(call('ZRANGE', ends, 0, 0, 'WITHSCORES')[2])
  if not first or first <= now then return nil end

  if is_claim then
    local token, taken, ticket_lease, preempted, ticket_label = match(m[15], UNCLAIMED)
    local bound, hold_ends = '', '0'
    if hold ~= '0' then
      hold_ends, bound = int(now + hold), ' ' .. hold
      due = math.min(due, now + hold)
    end
    if not token or due + GRACE > expires then return nil end
    call('ZADD', ends, int(due), 'h' .. id)
    call('HSET', state, 'offered', number(m[9]) - 1, 'h:' .. id, token .. taken .. ' ' .. hold_ends .. ' '
      .. ticket_lease .. ' 1 ' .. preempted .. ' ' .. process .. ' ' .. claimant .. ' ' .. ticket_label .. ' -')
    call('HDEL', state, 't:' .. id)
    return 'granted ' .. token .. ' ' .. int(due - now) .. bound
  end

  local claim, declared, priority = match(op, PLAIN)
  local most = tonumber(m[11] or limit) or 0
  if not claim or m[12] == '1' or number(m[7]) == 1 or used == 0 or used + cost <= most or queued == 0
      or (name ~= '-' and name ~= m[14]) or due + GRACE > expires then
    return nil
  end
  local order = int(math.max(number(m[5]) + 1, now))
  local sequence = order == int(now) and '-' or int(now)
  if name ~= '-' then declared = declared .. '|' .. declared .. '|-|' .. name end
  call('ZADD', ends, int(due), 't' .. id)
  call('ZADD', head .. ':queue' .. rest, 0 - priority, format('%08x%014x%014x', 1, order, now) .. id)
  call('HSET', state, 'waiting', number(m[2]) + 1, 'queued', queued + 1, 'order', order, 't:' .. id, order .. ' '
    .. sequence .. ' ' .. lease .. ' ' .. hold .. ' ' .. claim .. ' ' .. process .. ' ' .. claimant .. ' '
    .. label .. ' - 1 1 - ' .. declared .. ' ' .. cost .. ' queue ' .. priority .. ' - -1')
  return 'queued ' .. key .. ' ' .. int(most) .. ' ' .. m[1] .. ' ' .. order .. ' ' .. int(math.min(first, due) - now)
    .. (find(label, TRACED, 1, true) and ' ' .. oldest_label(state, ends) or '')
end
