-- Whose turn it is: what came free goes to the waiters whose turn it is, in the same step.

function turns.hand_over(t)
  local demand = t.demands[t.home]
  tickets.serve_round(state.load(demand.key), demand, t.round)
  tickets.stand_up(t)
  local is_here = t.process ~= '' and t.process == process
  tickets.leave(t, not is_here)
  if is_here then
    -- The waiter lives in the calling process: the reply tells it, so the slot is taken up.
    local token, due = holders.grant(t, true)
    state.notify(t.process, 'answer ' .. t.id .. ' granted ' .. int(token) .. ' ' .. int(due - now))
    return
  end
  -- Any other has to come for it. The request is kept until then, as it is: one that does not come queues
  -- up again (S17).
  local token = holders.grant(t, false)
  if t.durable then
    state.note(state.load(t.demands[1].key), now + t.claim)
    state.notice(t, 'granted ' .. int(token) .. ' ' .. int(t.claim))
  end
  state.notify(t.process, 'answer ' .. t.id .. ' look')
end

-- The indexes of the demands of a ticket, other than its home, that cannot be met now.
function turns.blocking_elsewhere(t)
  local blocking = {}
  for i, d in ipairs(t.demands) do
    if i ~= t.home then
      local other = state.load(d.key)
      if not state.fits(other, d) or admission.stands_back(other, d, t.order, t.sequence) then
        blocking[#blocking + 1] = i
      end
    end
  end
  return blocking
end

local WANTED = '^%S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ 1 %S+ %- (%d+) (%d+) '

-- Whether the key of a ticket is taken, as far as can be said of one for a single key without taking
-- its record apart.
function turns.is_blocked(s, id)
  local record = s.tickets[id] == nil and state.get(s, 't:' .. id)
  local limit, cost = match(record or '', WANTED)
  return limit and (s.paused or s.used + cost > (s.override or tonumber(limit)))
end

-- Hands what is free on these keys to the waiters whose turn it is (S6).
function turns.serve(work)
  local budget = CHUNK
  while #work > 0 do
    local s = state.load(table.remove(work))
    if s.has_evicted then turns.tell_evicted(s) end
    while true do
      local member, _, name = state.first_in_queue(s)
      if not member then
        if s.recheck > 0 then s.recheck, s.changed = 0, true end
        break
      end
      local id = sub(member, RANK + 1)
      local reaped = s.reaped_at == now and not s.unreaped
      local blocked = reaped and turns.is_blocked(s, id)
      local t = not blocked and tickets.read(s, id)
      if not blocked and not t then -- cannot be; but a queue must not stop at a member without a ticket
        state.set_place(s, name, member, false)
        s.waiting = math.max(0, s.waiting - 1)
      else
        local dead = not reaped and tickets.is_dead(s, t)
        if not dead and (blocked or s.paused or not state.fits(s, t.demands[t.home])) then -- a wide waiter blocks those behind (S8)
          -- Whoever stands behind a job is served when the last worker goes that can wake it.
          local at = name ~= '' and presence.lasts(s, name) or 0
          if at ~= s.recheck then
            if s.recheck == 0 and state.is_mixed(s) then state.note(s, at) end
            s.recheck, s.changed = at, true
          end
          break
        end
        if budget == 0 then -- the rest in a step of its own (S16)
          news[#news + 1] = 'more ' .. s.key
          if t.durable then state.note(s, now) end
          break
        end
        budget = budget - 1
        local blocking = not dead and turns.blocking_elsewhere(t)
        if dead then
          tickets.remove(t)
          for _, d in ipairs(t.demands) do
            if d.key ~= s.key then work[#work + 1] = d.key end
          end
        elseif #blocking == 0 then
          turns.hand_over(t)
        else
          local refused_by = admission.refusing(true, t.demands, blocking)
          if refused_by then
            local d = t.demands[refused_by]
            tickets.finish(t, admission.refusal(state.load(d.key), d, 'full', t.demands, blocking))
          else
            t.due = not t.durable and state.end_of(s, 't' .. t.id) or nil -- moving is no renewal
            tickets.stand_up(t)
            admission.take_place(t, blocking[1], work)
          end
        end
      end
    end
  end
end

-- Notifies the gates that have a worker again which of their jobs were evicted meanwhile.
function turns.tell_evicted(s)
  for name, list in pairs(s.lists) do
    if list.n > 0 and list.evicted and presence.lasts(s, sub(name, 1, -2)) > now then
      state.write_queue(s)
      for _, member in ipairs(call('ZRANGE', list.key, 0, CHUNK - 1)) do
        local t = tickets.read(s, sub(member, RANK + 1))
        if t then
          tickets.end_evicted(t)
        else
          state.set_place(s, name, member, false)
        end
      end
      if list.n > 0 then
        news[#news + 1] = 'more ' .. s.key
        state.note(s, now)
      end
    end
  end
end

-- Removes a holder that did not ask for it, and notifies it.
function turns.finish(h, loss)
  local first = state.load(holders.keys_of(h.keys)[1])
  holders.remove(h)
  if h.claimed then
    state.remember(first, h, 'lost ' .. loss)
    state.notify(h.process, 'lost ' .. h.id .. ' ' .. loss .. ' ' .. int(h.token))
  else
    tickets.forget(first, h.id)
    state.notify(h.process, 'answer ' .. h.id .. ' look')
  end
end

-- Takes the slots of a job that did not come for them. Until it is added again, its ticket is in no
-- book: one that takes a place meanwhile supersedes those that wait, and it does not yet.
function turns.lapse(h, t)
  holders.remove(h)
  tickets.forget(state.load(t.demands[1].key), t.id)
end

-- Of two jobs that did not come, whether the first waits again before the second: the one whose
-- claim time ended first, then the one that had its slot first.
function turns.lapsed_before(a, b)
  if a.lapsed_at ~= b.lapsed_at then return a.lapsed_at < b.lapsed_at end
  return a.token < b.token
end

-- Serves the next (S6); jobs that did not come for their slot keep their arrival order (S17).
function turns.pass_over(lapsed, freed)
  local again = {}
  for i, key in ipairs(freed) do again[i] = key end
  turns.serve(freed)
  for _, t in ipairs(lapsed) do
    if t.deferred <= now then t.deferred = 0 end
    if t.offers >= OFFERS then -- too many were in vain: others go first for a while
      t.offers, t.deferred = 0, now + DEFERRED
      news[#news + 1] = 'deferred ' .. t.id .. ' ' .. t.demands[1].key .. ' ' .. t.name
    end
    tickets.add(t)
    tickets.sit_down(t, 1)
  end
  if #lapsed > 0 then turns.serve(again) end
end

-- Drops what ended on a key (S2), a chunk at most (S16).
function turns.reap(s)
  if s.reaped_at == now then return end
  s.reaped_at = now
  if s.first > now or state.first_end(s) > now then
    s.unreaped = false
    -- The last worker may be gone that could wake the head of the queue.
    if s.recheck > 0 and s.recheck <= now then turns.serve({ s.key }) end
    return
  end
  state.write_ends(s)
  local ended = call('ZRANGEBYSCORE', s.ends, '-inf', int(now), 'WITHSCORES', 'LIMIT', 0, CHUNK)
  s.unreaped = #ended == 2 * CHUNK
  if s.unreaped then news[#news + 1] = 'more ' .. s.key end
  local freed, lapsed = {}, {}
  for i = 1, #ended, 2 do
    local member = ended[i]
    local id = sub(member, 2)
    if sub(member, 1, 1) == 'd' then -- it takes its place again
      local t = tickets.read(s, id)
      state.drop_end(s, member)
      if t and t.deferred > 0 then
        t.deferred = 0
        state.move_place(s, t.part, tickets.member(t), tickets.score(t))
        tickets.write(t)
        freed[#freed + 1] = s.key
      end
    elseif sub(member, 1, 1) == 'p' then -- a policy ended by which it was judged
      local t = tickets.read(s, id)
      state.drop_end(s, member)
      if t and not t.evicted then
        policies.note_end(s, t, true)
        tickets.write(t)
        freed[#freed + 1] = s.key
      end
    elseif sub(member, 1, 1) == 't' then
      local t = tickets.read(s, id)
      if t then
        tickets.remove(t)
        for _, d in ipairs(t.demands) do freed[#freed + 1] = d.key end
      else
        state.drop_end(s, member)
      end
    else
      local h = holders.read(s, id)
      if h then
        for _, key in ipairs(holders.keys_of(h.keys)) do freed[#freed + 1] = key end
        local t = not h.claimed and tickets.read(state.load(holders.keys_of(h.keys)[1]), id)
        if t and t.durable then
          turns.lapse(h, t)
          if t.name ~= '' and presence.lasts(state.load(t.demands[1].key), t.name) > now then
            t.offers = t.offers + 1
          end
          t.lapsed_at, t.token = tonumber(ended[i + 1]), h.token
          lapsed[#lapsed + 1] = t
        else
          turns.finish(h, (h.ends > 0 and h.ends <= now) and 'overran' or 'expired')
        end
      else
        state.drop_end(s, member)
      end
    end
  end
  if #freed == 0 and s.recheck > 0 and s.recheck <= now then freed[1] = s.key end
  if #lapsed > 1 then table.sort(lapsed, turns.lapsed_before) end
  turns.pass_over(lapsed, freed)
end

-- Returns the holder and the ticket of an id that are still there once all its keys are reaped.
function turns.member(s, id)
  turns.reap(s)
  local h = holders.read(s, id)
  local t = not (h and h.claimed) and tickets.read(s, id) or nil
  local keys = {}
  if h then
    keys = holders.keys_of(h.keys)
  elseif t then
    for i, demand in ipairs(t.demands) do keys[i] = demand.key end
  end
  if #keys > 1 then
    for _, key in ipairs(keys) do turns.reap(state.load(key)) end
    h = holders.read(s, id)
    t = not (h and h.claimed) and tickets.read(s, id) or nil
  end
  return h, t
end
