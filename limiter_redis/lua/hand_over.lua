-- Handing over: what came free goes to the waiters whose turn it is, in the same step.

local function hand_over(t)
  local demand = t.demands[t.home]
  serve_round(load(demand.key), demand, t.round)
  remove_ticket(t)
  if t.process ~= '' and t.process == process then
    -- The waiter lives in the calling process: the reply tells it, so the slot is taken up.
    local token, due = grant(t, true)
    tell(t.process, 'answer ' .. t.id .. ' granted ' .. int(token) .. ' ' .. int(due - now))
    return
  end
  -- Any other has to come for it. The request is kept until then: who does not come queues up
  -- again (S17).
  local token = grant(t, false)
  write_ticket(t)
  if t.durable then
    local s = load(t.demands[1].key)
    call('ZADD', offers_of(s), int(now + t.claim), s.key)
    call('PEXPIRE', offers_of(s), int(FOREVER / 1000))
    news[#news + 1] = 'notice ' .. t.id .. ' ' .. t.payload .. ' granted ' .. int(token) .. ' ' ..
      int(t.claim)
  end
  tell(t.process, 'answer ' .. t.id .. ' look')
end

-- Hands what is free on these keys to the waiters whose turn it is (S6).
local function serve(work)
  local budget = CHUNK
  while #work > 0 do
    local s = load(table.remove(work))
    while true do
      local member = first_in_queue(s)
      if not member then break end
      local t = read_ticket(s, string.sub(member, RANK + 1))
      if not t then -- cannot be; but a queue must not stop at a member without a ticket
        set_place(s, member, false)
        s.waiting = math.max(0, s.waiting - 1)
      else
        local home = t.demands[t.home]
        if s.paused or not fits(s, home) then break end -- a wide waiter blocks those behind (S8)
        if budget == 0 then -- the rest in a step of its own (S16)
          news[#news + 1] = 'more ' .. s.key
          break
        end
        budget = budget - 1
        local blocking, dead = {}, is_dead(s, t)
        for i, d in ipairs(t.demands) do
          if i ~= t.home then
            local other = load(d.key)
            if not fits(other, d) or stands_back(other, d, t.order, t.sequence) then
              blocking[#blocking + 1] = i
            end
          end
        end
        if dead then
          remove_ticket(t)
          for _, d in ipairs(t.demands) do
            if d.key ~= s.key then work[#work + 1] = d.key end
          end
        elseif #blocking == 0 then
          hand_over(t)
        else
          local refused_by = refusing(true, t.demands, blocking)
          if refused_by then
            local d = t.demands[refused_by]
            end_ticket(t, refusal(load(d.key), d, 'full'))
          else
            t.due = not t.durable and end_of(s, 't' .. t.id) or nil -- moving is no renewal
            stand_up(t)
            take_place(t, blocking[1], work)
          end
        end
      end
    end
  end
end

-- Removes a holder that did not ask for it, and tells it.
local function end_holder(h, loss)
  local first = load(keys_of(h.keys)[1])
  remove_holder(h)
  if h.claimed then
    call('SET', first.head .. ':ended:' .. h.id, 'lost ' .. loss, 'PX', REMEMBER)
    tell(h.process, 'lost ' .. h.id .. ' ' .. loss)
  else
    forget_ticket(first, h.id)
    tell(h.process, 'answer ' .. h.id .. ' look')
  end
end

-- Serves the next (S6); jobs that did not come for their slot keep their arrival order (S17).
local function pass_over(lapsed, freed)
  local again = {}
  for i, key in ipairs(freed) do again[i] = key end
  serve(freed)
  for _, t in ipairs(lapsed) do
    add_ticket(t)
    sit_down(t, 1)
  end
  if #lapsed > 0 then serve(again) end
end

-- Drops what ended on a key (S2), a chunk at most (S16).
local function reap(s)
  if s.reaped_at == now then return end
  s.reaped_at = now
  if s.first > now or first_end(s) > now then
    s.unreaped = false
    return
  end
  write_ends(s)
  local ended = call('ZRANGEBYSCORE', s.ends, '-inf', int(now), 'LIMIT', 0, CHUNK)
  s.unreaped = #ended == CHUNK
  if s.unreaped then news[#news + 1] = 'more ' .. s.key end
  local freed, lapsed = {}, {}
  for _, member in ipairs(ended) do
    local id = string.sub(member, 2)
    if string.sub(member, 1, 1) == 't' then
      local t = read_ticket(s, id)
      if t then
        remove_ticket(t)
        for _, d in ipairs(t.demands) do freed[#freed + 1] = d.key end
      else
        drop_end(s, member)
      end
    else
      local h = read_holder(s, id)
      if h then
        for _, key in ipairs(keys_of(h.keys)) do freed[#freed + 1] = key end
        local t = not h.claimed and read_ticket(load(keys_of(h.keys)[1]), id)
        if t and t.durable then
          remove_holder(h)
          lapsed[#lapsed + 1] = t
        else
          end_holder(h, (h.ends > 0 and h.ends <= now) and 'overran' or 'expired')
        end
      else
        drop_end(s, member)
      end
    end
  end
  pass_over(lapsed, freed)
end

-- Returns the holder and the ticket of an id that are still there once all its keys are reaped.
local function member(s, id)
  reap(s)
  local h = read_holder(s, id)
  local t = not (h and h.claimed) and read_ticket(s, id) or nil
  local keys = {}
  if h then
    keys = keys_of(h.keys)
  elseif t then
    for i, demand in ipairs(t.demands) do keys[i] = demand.key end
  end
  if #keys > 1 then
    for _, key in ipairs(keys) do reap(load(key)) end
    h = read_holder(s, id)
    t = not (h and h.claimed) and read_ticket(s, id) or nil
  end
  return h, t
end
