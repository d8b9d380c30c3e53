-- Admission: who may come in now, who waits, and what a newcomer does to others.

-- Whether a waiter, or a pause, stands before a call that would come in now (S3).
local function stands_back(s, demand, order, sequence)
  if s.paused then return true end
  local first, score = first_in_queue(s)
  if not first then return false end
  if score ~= -demand.priority then return score < -demand.priority end
  return string.sub(first, 1, RANK) < rank(next_round(s, demand), order, sequence)
end

local function refusal(s, demand, reason)
  local limit = s.paused and 0 or limit_of(s, demand)
  return 'refused ' .. s.key .. ' ' .. limit .. ' ' .. s.used .. ' ' .. next_end(s) .. ' ' .. reason
end

-- The demand because of which a blocked request may not wait, if there is one (§5 of the design).
local function refusing(wait, demands, blocking)
  if not wait then return blocking[1] end
  for _, i in ipairs(blocking) do
    if demands[i].conflict == 'cancel' then return i end
  end
  return nil
end

local function each_waiting(s, visit)
  local ids = {}
  write_queue(s)
  for _, member in ipairs(call('ZRANGE', s.queue, 0, -1)) do
    ids[#ids + 1] = string.sub(member, RANK + 1)
  end
  if s.waiting > s.queued then -- some sit in the queue of another of their keys
    write_fields(s)
    for _, field in ipairs(call('HKEYS', s.state)) do
      if string.sub(field, 1, 2) == 't:' then ids[#ids + 1] = string.sub(field, 3) end
    end
  end
  local seen = {}
  for _, id in ipairs(ids) do
    if not seen[id] then
      seen[id] = true
      local t = read_ticket(s, id)
      if t and not read_holder(s, id) then visit(t) end
    end
  end
end

local function older(a, b)
  return a.order < b.order or (a.order == b.order and a.sequence < b.sequence)
end

local SUPERSEDES = { cancel_running = true, keep_latest = true }

-- Asks the oldest holders to let go until the demand would fit; adds keys that lost one to `work`.
local function preempt(s, demand, work)
  local limit = limit_of(s, demand)
  if s.paused or demand.cost > limit then return end
  local missing = s.used + demand.cost - limit
  local others = {}
  write_ends(s)
  for _, member in ipairs(call('ZRANGE', s.ends, 0, -1)) do
    if string.sub(member, 1, 1) == 'h' then
      local h = read_holder(s, string.sub(member, 2))
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
      for _, key in ipairs(keys_of(h.keys)) do
        local own = read_holder(load(key), h.id)
        if own then
          own.preempted = true
          write_holder(load(key), own)
        end
      end
      tell(h.process, 'lost ' .. h.id .. ' preempted')
    else -- handed over, but not taken up: for its caller it still waits
      local t = read_ticket(load(keys_of(h.keys)[1]), h.id)
      remove_holder(h)
      for _, key in ipairs(keys_of(h.keys)) do work[#work + 1] = key end
      if t then
        for _, d in ipairs(t.demands) do forget_ticket(load(d.key), t.id) end
        remember(t, 'replaced ' .. s.key)
      end
    end
  end
end

-- Lets a standing ticket wait in a queue; what that does to others is its resolution. Adds the
-- keys that have to be served afterwards to `work`. Returns whether the ticket still waits.
local function take_place(t, home, work)
  local demand = t.demands[home]
  local s = load(demand.key)
  if SUPERSEDES[demand.conflict] then
    local replaced = false
    local in_the_way = {}
    each_waiting(s, function(other)
      if other.id == t.id then return end
      if older(other, t) then
        in_the_way[#in_the_way + 1] = other
      else
        for _, d in ipairs(other.demands) do
          if d.key == s.key and SUPERSEDES[d.conflict] then replaced = true end
        end
      end
    end)
    if replaced then
      leave(t)
      for _, d in ipairs(t.demands) do work[#work + 1] = d.key end
      remember(t, 'replaced ' .. s.key)
      return false
    end
    work[#work + 1] = s.key
    for _, other in ipairs(in_the_way) do
      for _, d in ipairs(other.demands) do work[#work + 1] = d.key end
      end_ticket(other, 'replaced ' .. s.key)
    end
  end
  sit_down(t, home)
  if demand.conflict == 'cancel_running' then preempt(s, demand, work) end
  return true
end
