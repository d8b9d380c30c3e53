-- Presence: whether a gate has a worker that can wake its jobs (S17). By its name, beside the index
-- of offers, a sorted set of its workers: until when each counts as there unless it is seen again.

local PRESENCE = 5000000
local OFFERS, DEFERRED = 3, 60000000 -- of a ticket, in vain; and for how long others go before it

-- Until when a gate has a worker as far as is known; 0 if it never had one.
function presence.lasts(s, name)
  local key = s.common .. ':present:' .. name
  local lasts = presences[key]
  if not lasts then
    lasts = tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2]) or 0
    presences[key] = lasts
  end
  return lasts
end

-- Notes that a worker is there, or leaves; if its gate's presence changes by that, all keys on which
-- jobs wait are looked at, a chunk of them now, the others by the sweeps that follow (S16).
function presence.see(common, name, worker, leaves)
  local key = common .. ':present:' .. name
  local s = { common = common }
  local was_there = presence.lasts(s, name) > now
  if not leaves then
    if call('ZADD', key, int(now + PRESENCE), worker) == 1 then
      call('ZREMRANGEBYSCORE', key, '-inf', '(' .. int(now - UNKNOWN))
    end
    presences[key] = math.max(presences[key], now + PRESENCE)
  elseif (tonumber(call('ZSCORE', key, worker) or nil) or math.huge) > now then
    call('ZADD', key, int(now), worker)
    presences[key] = nil
  end
  call('PEXPIRE', key, int(FOREVER / 1000))
  if was_there == (presence.lasts(s, name) > now) then return end
  for _, s in pairs(states) do s.front, s.noted = nil, nil end
  local index, turned = common .. ':offers', common .. ':turned'
  if call('EXISTS', turned) == 1 then
    call('ZUNIONSTORE', turned, 2, turned, index, 'AGGREGATE', 'MIN')
    call('DEL', index)
  elseif call('EXISTS', index) == 1 then
    call('RENAME', index, turned)
  end
  call('PEXPIRE', turned, int(FOREVER / 1000))
  presence.look_at_turned(common)
end

-- Looks at keys on which the presence of a gate may have changed which ticket is next; returns how many.
function presence.look_at_turned(common)
  local turned = common .. ':turned'
  local found = call('ZRANGE', turned, 0, CHUNK - 1, 'WITHSCORES')
  for i = 1, #found, 2 do
    call('ZREM', turned, found[i])
    local s = state.load(found[i])
    s.noted = nil
    if s.lists then
      turns.reap(s)
      turns.serve({ s.key })
      if s.jobs > 0 or s.offered > 0 then state.note(s, state.next_due(s)) end
    else
      state.note(s, tonumber(found[i + 1]))
    end
  end
  return #found / 2
end
