-- Ask for slots, ask again while waiting, or take up a slot that was handed over.
--
-- operation  "acquire", id, mode ("wait", "try", "reclaim", "look"), lease, hold (0: none), claim,
--            order (0: now), payload (base64, false: not durable), claimant, label, live (whether
--            somebody in the calling process listens), fencing token (0: none), demands: list of
--            {key, limit, cost, conflict, priority, group (""), max_waiting (-1: any)}
-- reply      "granted" token microseconds-left
--            "queued" key limit in-use order microseconds-to-next-end ("-")
--            "refused" key limit in-use microseconds-to-next-end ("-") reason ("full", "queue",
--            "cost", "unknown")
--            "replaced" key | "held" microseconds-left

steps.acquire = function(op)
  local r = {
    id = op[2], lease = op[4], hold = op[5], claim = op[6], payload = op[8] or '',
    durable = op[8] ~= false, claimant = op[9], label = op[10],
    channel = op[11] and own_channel or '', demands = {}
  }
  local mode = op[3]
  for i, d in ipairs(op[13]) do
    r.demands[i] = {
      key = d[1], limit = d[2], cost = d[3], conflict = d[4], priority = d[5],
      group = d[6] ~= '' and d[6] or nil, max_waiting = d[7]
    }
  end
  local first = load(r.demands[1].key)
  for _, demand in ipairs(r.demands) do reap(load(demand.key)) end

  if first.exists or first.written then
    local h = read_holder(first, r.id)
    if h then
      local left = int(tonumber(call('ZSCORE', first.ends, 'h' .. r.id)) - now)
      if mode == 'look' and not h.claimed then return 'granted ' .. int(h.token) .. ' ' .. left end
      if mode == 'look' or (h.claimed and r.durable and h.claimant ~= r.claimant) then
        return 'held ' .. left
      end
      local due
      for _, demand in ipairs(r.demands) do
        local s = load(demand.key)
        local own = read_holder(s, r.id)
        if own then
          if not own.claimed then
            own.claimed = true
            own.claimant = r.claimant
            own.ends = r.hold > 0 and now + r.hold or 0
            call('HDEL', s.state, 't:' .. r.id)
          end
          own.channel = r.channel
          write_holder(s, own)
          due = due_of(own, r.lease)
          call('ZADD', s.ends, int(due), 'h' .. r.id)
          outlive(s, due)
        end
      end
      return 'granted ' .. int(h.token) .. ' ' .. int(due - now)
    end
    local t = read_ticket(first, r.id)
    if t then
      local s = load(t.demands[t.home].key)
      if not t.durable and mode ~= 'look' then
        call('ZADD', s.ends, int(now + t.lease), 't' .. t.id)
        for _, demand in ipairs(t.demands) do outlive(load(demand.key), now + t.lease) end
      end
      return steps.queued(t)
    end
  end
  local ended = call('GET', first.head .. ':ended:' .. r.id) -- it may have waited before (S1)
  if ended and string.sub(ended, 1, 4) ~= 'lost' then return ended end
  if mode == 'look' then return refusal(first, r.demands[1], 'unknown') end

  -- A newcomer.
  local order, sequence = op[7], now
  for _, demand in ipairs(r.demands) do
    local s = load(demand.key)
    if op[7] == 0 then order = math.max(order, s.order + 1, now) end
  end
  local blocking = {}
  for i, demand in ipairs(r.demands) do
    local s = load(demand.key)
    if demand.cost > demand.limit and demand.limit > 0 then return refusal(s, demand, 'cost') end
    if not fits(s, demand) or (mode ~= 'reclaim'
        and (s.paused or s.queued > 0) and stands_back(s, demand, order, sequence)) then
      blocking[#blocking + 1] = i
    end
  end
  if #blocking == 0 then
    local token = op[12] > 0 and mode == 'reclaim' and op[12] or nil
    local due
    token, due = grant(r, true, token)
    return 'granted ' .. int(token) .. ' ' .. int(due - now)
  end
  local refused_by = refusing(mode == 'wait', r.demands, blocking)
  if refused_by then
    local demand = r.demands[refused_by]
    return refusal(load(demand.key), demand, 'full')
  end
  local home = r.demands[blocking[1]]
  local s = load(home.key)
  local in_queue = SUPERSEDES[home.conflict] and 0 or s.queued
  if home.max_waiting >= 0 and in_queue >= home.max_waiting then
    return refusal(s, home, 'queue')
  end
  local t = r
  t.order, t.sequence, t.since = order, sequence, now
  for _, demand in ipairs(r.demands) do
    local each = load(demand.key)
    if order > each.order then each.order = order end
  end
  add_ticket(t)
  local work = {}
  if not take_place(t, blocking[1], work) then
    serve(work)
    return 'replaced ' .. home.key
  end
  if #work > 0 then
    serve(work)
    if read_holder(first, r.id) then return steps.acquire(op) end
    t = read_ticket(first, r.id)
    if not t then return call('GET', first.head .. ':ended:' .. r.id) end
  end
  return steps.queued(t)
end

-- Where a waiting ticket stands.
steps.queued = function(t)
  local home = t.demands[t.home]
  local s = load(home.key)
  local limit = s.paused and 0 or limit_of(s, home)
  return 'queued ' .. s.key .. ' ' .. limit .. ' ' .. s.used .. ' ' .. int(t.order) .. ' ' .. next_end(s)
end
