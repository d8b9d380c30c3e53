-- Admission: which requests are granted now, which wait, and what a new one does to others.

-- Whether a waiter, or a pause, stands before a call that would come in now (S3).
function admission.stands_back(s, demand, order, sequence)
  if s.paused then return true end
  local first, score = state.first_in_queue(s)
  if not first then return false end
  if score ~= -demand.priority then return score < -demand.priority end
  return sub(first, 1, RANK) < tickets.rank(tickets.next_round(s, demand), order, sequence)
end

local FEW = 16

-- The microseconds since the oldest grant of those that hold slots; "-" if there is none, or there
-- are too many members to look at each.
function admission.held_for(s)
  local held, since, costs = {}, now, 0
  if s.kind == 'string' then -- a single holder stays one
    for member, due in pairs(s.ends_now) do
      if due then held[#held + 1] = member end
    end
  elseif s.used > 0 then
    state.write_ends(s)
    held = call('ZRANGE', s.ends, 0, FEW - 1)
  end
  for _, member in ipairs(held) do
    local h = sub(member, 1, 1) == 'h' and holders.read(s, sub(member, 2))
    if h then
      costs = costs + h.cost
      since = math.min(since, h.since)
    end
  end
  return costs > 0 and costs == s.used and int(now - since) or '-'
end

-- `blocking`: the indexes in `demands` of all that block, if it may be more than this one.
function admission.refusal(s, demand, reason, demands, blocking)
  local limit = s.paused and 0 or state.limit_of(s, demand)
  local keys = blocking and #blocking > 1 and tickets.keys_at(demands, blocking) or '-'
  return 'refused ' .. s.key .. ' ' .. int(limit) .. ' ' .. int(s.used) .. ' ' .. admission.held_for(s) .. ' '
    .. reason .. ' ' .. int(state.in_line(s)) .. ' ' .. keys
end

-- The demand because of which a blocked request may not wait, if there is one (§5 of the design).
function admission.refusing(wait, demands, blocking)
  if not wait then return blocking[1] end
  for _, i in ipairs(blocking) do
    if demands[i].conflict == 'cancel' then return i end
  end
  return nil
end

function admission.each(s, visit)
  local ids = {}
  state.write_queue(s)
  local parts = { s.queue }
  for _, list in pairs(s.lists or {}) do
    if list.n > 0 and not list.evicted then parts[#parts + 1] = list.key end
  end
  for _, part in ipairs(parts) do
    for _, member in ipairs(call('ZRANGE', part, 0, -1)) do
      ids[#ids + 1] = sub(member, RANK + 1)
    end
  end
  if s.waiting > s.queued then -- some sit in the queue of another of their keys
    state.write_fields(s)
    for _, field in ipairs(call('HKEYS', s.state)) do
      if sub(field, 1, 2) == 't:' then ids[#ids + 1] = sub(field, 3) end
    end
  end
  local seen = {}
  for _, id in ipairs(ids) do
    if not seen[id] then
      seen[id] = true
      local t = tickets.read(s, id)
      if t and not t.evicted and not holders.read(s, id) then visit(t) end
    end
  end
end

function admission.older(a, b)
  return a.order < b.order or (a.order == b.order and a.sequence < b.sequence)
end

local SUPERSEDES = { cancel_running = true, keep_latest = true }

-- Asks the oldest holders to let go until the demand would fit; adds keys that lost one to `work`.
function admission.preempt(s, demand, work)
  local limit = state.limit_of(s, demand)
  if s.paused or demand.cost > limit then return end
  local missing = s.used + demand.cost - limit
  local others = {}
  state.write_ends(s)
  for _, member in ipairs(call('ZRANGE', s.ends, 0, -1)) do
    if sub(member, 1, 1) == 'h' then
      local h = holders.read(s, sub(member, 2))
      if h and h.preempted then
        missing = missing - h.cost
      elseif h then
        others[#others + 1] = h
      end
    end
  end
  table.sort(others, function(a, b) return a.token < b.token end)
  for _, h in ipairs(others) do
    if missing <= 0 then break end
    missing = missing - h.cost
    if h.claimed then
      for _, key in ipairs(holders.keys_of(h.keys)) do
        local own = holders.read(state.load(key), h.id)
        if own then
          own.preempted = true
          holders.write(state.load(key), own)
        end
      end
      state.notify(h.process, 'lost ' .. h.id .. ' preempted ' .. int(h.token))
    else -- handed over, but not taken up: for its caller it still waits
      local t = tickets.read(state.load(holders.keys_of(h.keys)[1]), h.id)
      holders.remove(h)
      for _, key in ipairs(holders.keys_of(h.keys)) do work[#work + 1] = key end
      if t and t.name ~= '' and presence.lasts(s, t.name) <= now then
        tickets.add(t)
        tickets.keep_replaced(t, s.key)
      elseif t then
        for _, d in ipairs(t.demands) do tickets.forget(state.load(d.key), t.id) end
        tickets.remember(t, 'replaced ' .. s.key)
      end
    end
  end
end

-- Lets a standing ticket wait in a queue; what that does to others is its resolution. Adds the
-- keys that have to be served afterwards to `work`. Returns whether the ticket still waits.
function admission.take_place(t, home, work)
  local demand = t.demands[home]
  local s = state.load(demand.key)
  if SUPERSEDES[demand.conflict] then
    local replaced = false
    local in_the_way = {}
    admission.each(s, function(other)
      if other.id == t.id then return end
      if admission.older(other, t) then
        in_the_way[#in_the_way + 1] = other
      else
        for _, d in ipairs(other.demands) do
          if d.key == s.key and SUPERSEDES[d.conflict] then replaced = true end
        end
      end
    end)
    if replaced then
      tickets.leave(t)
      for _, d in ipairs(t.demands) do work[#work + 1] = d.key end
      tickets.remember(t, 'replaced ' .. s.key)
      return false
    end
    work[#work + 1] = s.key
    for _, other in ipairs(in_the_way) do
      for _, d in ipairs(other.demands) do work[#work + 1] = d.key end
      if other.name ~= '' and presence.lasts(s, other.name) <= now then
        tickets.stand_up(other)
        tickets.keep_replaced(other, s.key)
      else
        tickets.finish(other, 'replaced ' .. s.key)
      end
    end
  end
  tickets.sit_down(t, home)
  if demand.conflict == 'cancel_running' then admission.preempt(s, demand, work) end
  return true
end
