-- Holders of slots of a key, in field h:<id> of its state. Words:
--
--   token cost limit since ends lease claimed preempted process claimant label keys
--
-- `since` is "-" where it is the token, `ends` the end of max_hold (0 for none), `keys` all keys of
-- the lease with a "|" between them, "-" if it is this one alone. The end of the lease is in the
-- ends. A single holder has another form, see entry.lua.

function holders.write(s, h)
  s.holders[h.id] = h
  local token = int(h.token)
  local since = h.since == h.token and '-' or int(h.since)
  state.set(s, 'h:' .. h.id, token .. ' ' .. int(h.cost) .. ' ' .. int(h.limit) .. ' ' .. since .. ' ' ..
    int(h.ends) .. ' ' .. int(h.lease) .. (h.claimed and ' 1 ' or ' 0 ') ..
    (h.preempted and '1 ' or '0 ') .. state.text(h.process) .. ' ' .. state.text(h.claimant) .. ' ' .. h.label ..
    ' ' .. (h.keys == s.key and '-' or h.keys))
end

local WORDS = '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S) (%S) (%S+) (%S+) (%S+) (%S+)$'

function holders.read(s, id)
  local h = s.holders[id]
  if h ~= nil then return h or nil end
  local record = state.get(s, 'h:' .. id)
  if not record then
    s.holders[id] = false
    return nil
  end
  local token, cost, limit, since, ends, lease, claimed, preempted, whose, claimant, label, keys =
    match(record, WORDS)
  token = tonumber(token)
  h = {
    id = id, token = token, cost = tonumber(cost), limit = tonumber(limit),
    since = tonumber(since) or token, ends = tonumber(ends), lease = tonumber(lease),
    claimed = claimed == '1', preempted = preempted == '1', process = state.untext(whose),
    claimant = state.untext(claimant), label = label, keys = keys == '-' and s.key or keys
  }
  s.holders[id] = h
  return h
end

-- Reads the form of a single holder.
function holders.adopt(s, record)
  local w = {}
  for word in string.gmatch(record, '%S+') do w[#w + 1] = word end
  local h = {
    id = w[1], cost = tonumber(w[3]), limit = tonumber(w[4]), since = tonumber(w[5]),
    token = tonumber(w[6]), ends = tonumber(w[7]), lease = tonumber(w[8]), claimed = true,
    preempted = false, process = state.untext(w[9]), claimant = state.untext(w[10]), label = w[11], keys = s.key
  }
  local due = tonumber(w[2])
  s.used, s.token = h.cost, h.token
  holders.note_oldest(s, h)
  state.note_name(s, w[12] or '-')
  holders.write(s, h)
  state.set_end(s, 'h' .. h.id, due, true)
  state.outlive(s, due)
end

-- Notes the only holder of a key, for waiters that ask for the trace of the oldest: no later one has a
-- lower token while it is there. (After a loss of data an older one may come back: it is not noted.)
-- With its token, since a job's id may be used again.
function holders.note_oldest(s, h)
  if find(h.label, TRACED, 1, true) then state.set(s, 'oldest', int(h.token) .. ' ' .. h.id) end
end

function holders.keys_of(joined)
  if not find(joined, '|', 1, true) then return { joined } end
  local keys = {}
  for key in string.gmatch(joined, '[^|]+') do keys[#keys + 1] = key end
  return keys
end

function holders.due_of(h, microseconds)
  local due = now + microseconds
  if h.ends > 0 and h.ends < due then due = h.ends end
  return due
end

function holders.remove(h)
  for _, key in ipairs(holders.keys_of(h.keys)) do
    local s = state.load(key)
    local own = holders.read(s, h.id)
    if own then
      s.used = s.used - own.cost
      if not own.claimed then s.offered = s.offered - 1 end
      s.holders[h.id] = false
      state.set(s, 'h:' .. h.id, false)
      state.drop_end(s, 'h' .. h.id)
    end
  end
end

-- Gives the slots. `r` is a request or a ticket: id, lease, hold, claim, process, claimant, label,
-- demands.
function holders.grant(r, claimed, token)
  if not token then
    token = now
    for _, demand in ipairs(r.demands) do
      local s = state.load(demand.key)
      if s.token >= token then token = s.token + 1 end
    end
  end
  local joined = r.demands[1].key
  for i = 2, #r.demands do joined = joined .. '|' .. r.demands[i].key end
  local due
  for _, demand in ipairs(r.demands) do
    local s = state.load(demand.key)
    local h = {
      id = r.id, token = token, cost = demand.cost, limit = demand.limit, since = now, ends = 0,
      lease = r.lease, claimed = claimed, preempted = false, process = r.process,
      claimant = r.claimant, label = r.label, keys = joined
    }
    if claimed and r.hold > 0 then h.ends = now + r.hold end
    if s.used == 0 then holders.note_oldest(s, h) end
    due = holders.due_of(h, claimed and r.lease or r.claim)
    s.used = s.used + demand.cost
    if not claimed then s.offered = s.offered + 1 end
    if token > s.token then s.token = token end
    holders.write(s, h)
    state.set_end(s, 'h' .. r.id, due, true)
    state.outlive(s, due)
    if s.jobs > 0 then state.note(s, due) end
  end
  return token, due
end
