-- Ask for slots, ask again while waiting, or take up a slot that was handed over.
--
-- operation  "acquire" id mode ("wait", "try", "reclaim", "look") lease hold (0: none) claim
--            order (0: now) payload (base64, "=" if empty; "-": not durable; with the gate's
--            name, "|", the worker that asks, if it is there to stay, and "|" before it, if only
--            workers of that name can wake the job) claimant label
--            live (1 if somebody in the calling process listens) token (0: none)
--            and for each key: key limit (with a policy see policies.lua) cost conflict priority group ("-": none)
--            max_waiting (-1: any) name ("-": none)
-- reply      "granted" token microseconds-left, and of a lease that it had before or takes up: the
--            microseconds until the end of its max_hold ("-": none), and of a job that takes it up:
--            the microseconds that its ticket has waited
--            "queued" key limit in-use order microseconds-to-next-end ("-"), and if the request's
--            label carries a trace, or it is for several keys: the label of the oldest holder
--            ("-": no trace), and all keys that block ("|" between them)
--            "refused" key limit in-use microseconds-since-the-oldest-grant ("-") reason ("full",
--            "queue", "cost", "unknown", "evicted") waiting all-keys-that-block ("|" between them;
--            "-": it is this one alone)
--            "replaced" key | "held" microseconds-left
-- cost       O(log n); under "cancel_running" and "keep_latest" O(n)

function steps.acquire(w)
  local reply = steps.ask(w)
  if w[8] ~= '-' and w[3] ~= 'look' and match(reply, '^re') then -- refused or replaced
    tickets.asked(state.load(w[13]), w[2])
  end
  return reply
end

function steps.ask(w)
  local name, worker, payload = match(w[8], '^([^|]*)|([^|]*)|(.*)$')
  local r = {
    id = w[2], lease = tonumber(w[4]), hold = tonumber(w[5]), claim = tonumber(w[6]),
    payload = payload or w[8], durable = w[8] ~= '-', name = name or '', part = name or '',
    offers = 0, deferred = 0, claimant = state.untext(w[9]), label = w[10],
    process = w[11] == '1' and process or '', demands = {}
  }
  local mode, given_order = w[3], tonumber(w[7])
  for i = 13, #w, 8 do
    local demand = tickets.read_demand(w, i)
    demand.name = w[i + 7]
    r.demands[#r.demands + 1] = demand
  end
  local first = state.load(r.demands[1].key, r.id)
  if worker and worker ~= '' and mode ~= 'look' then -- it is there
    local common
    for _, demand in ipairs(r.demands) do
      local s = state.load(demand.key)
      if s.common ~= common then
        common = s.common
        local lasts = call('ZSCORE', common .. ':present:' .. name, worker)
        if not lasts or tonumber(lasts) <= now then presence.see(common, name, worker, false) end
      end
    end
  end
  for _, demand in ipairs(r.demands) do turns.reap(state.load(demand.key)) end

  local ended = first.head .. ':ended:' .. r.id
  -- A delivery that is gone, and whose request comes late, takes no slot that was handed over, either.
  if r.durable and mode ~= 'look' then
    local found = call('EXISTS', ended .. '|' .. w[9], ended, ended) -- the one counts once, the other twice
    if found % 2 == 1 then return 'replaced ' .. first.key end
    if found == 0 then never_ended = r.id end
  end

  local h = holders.read(first, r.id)
  if h and r.durable and mode ~= 'look' and not h.claimed then
    if steps.has_other_keys(r, holders.keys_of(h.keys)) then
      steps.release({ 'release', r.id, first.key })
      h = nil
    end
  end
  if h then
    if mode == 'look' or (h.claimed and r.durable and h.claimant ~= r.claimant) then
      local left = int(state.end_of(first, 'h' .. r.id) - now)
      if not h.claimed then return 'granted ' .. int(h.token) .. ' ' .. left end
      return 'held ' .. left
    end
    local due
    local waiter = r.durable and not h.claimed and tickets.read(first, r.id)
    local waited = waiter and ' ' .. int(math.max(0, now - waiter.sequence)) or ''
    for _, demand in ipairs(r.demands) do
      local s = state.load(demand.key)
      local own = holders.read(s, r.id)
      if own then
        if not own.claimed then
          own.claimed = true
          s.offered = s.offered - 1
          own.claimant = r.claimant
          own.ends = r.hold > 0 and now + r.hold or 0
          tickets.forget(s, r.id)
        end
        own.process = r.process
        holders.write(s, own)
        due = holders.due_of(own, r.lease)
        state.set_end(s, 'h' .. r.id, due)
        state.outlive(s, due)
      end
    end
    local bound = h.ends > 0 and ' ' .. int(h.ends - now) or waited ~= '' and ' -' or ''
    return 'granted ' .. int(h.token) .. ' ' .. int(due - now) .. bound .. waited
  end
  local t = tickets.read(first, r.id)
  if t and t.evicted then
    if mode == 'look' then return tickets.end_of_evicted(t) end
    return tickets.end_evicted(t)
  end
  if t and r.durable and mode ~= 'look' then
    local keys = {}
    for i, demand in ipairs(t.demands) do keys[i] = demand.key end
    if steps.has_other_keys(r, keys) then
      steps.release({ 'release', r.id, first.key })
      t = nil
    end
  end
  if t then
    local s = state.load(t.demands[t.home].key)
    local judged = {} -- by the policies that its process knows now (S22)
    if mode ~= 'look' then
      for _, demand in ipairs(r.demands) do policies.judge_by(t, demand.name, demand.spec, judged) end
    end
    if not t.durable and mode ~= 'look' then
      state.set_end(s, 't' .. t.id, now + t.lease)
      for _, demand in ipairs(t.demands) do state.outlive(state.load(demand.key), now + t.lease) end
      if t.label ~= r.label then
        t.label = r.label
        tickets.write(t)
      end
    end
    if #judged > 0 then
      turns.serve(judged)
      if holders.read(first, r.id) then return steps.ask(w) end
      t = tickets.read(first, r.id)
      if not t then return call('GET', ended) end
    end
    return steps.queued(t)
  end
  local how = r.id ~= never_ended and call('GET', ended) -- it may have waited before (S1)
  if how and not match(how, '^lost ') then return how end
  if mode == 'look' then return admission.refusal(first, r.demands[1], 'unknown') end

  for i = 2, r.durable and #r.demands or 1 do
    local held = steps.leave_other_keys(r, r.demands[i].key)
    if held then return held end
  end

  -- A newcomer.
  local order, sequence = given_order, now
  if order == 0 then
    for _, demand in ipairs(r.demands) do
      order = math.max(order, state.load(demand.key).order + 1, now)
    end
  end
  local blocking = {}
  for i, demand in ipairs(r.demands) do
    local s = state.load(demand.key)
    if demand.cost > demand.limit and demand.limit > 0 then return admission.refusal(s, demand, 'cost') end
    if not state.fits(s, demand) or (mode ~= 'reclaim'
        and (s.paused or s.queued > 0) and admission.stands_back(s, demand, order, sequence)) then
      blocking[#blocking + 1] = i
    end
  end
  if #blocking == 0 then
    steps.note_names(r)
    local token, due = holders.grant(r, true, mode == 'reclaim' and w[12] ~= '0' and tonumber(w[12]) or nil)
    return 'granted ' .. int(token) .. ' ' .. int(due - now)
  end
  local refused_by = admission.refusing(mode == 'wait', r.demands, blocking)
  if refused_by then
    local demand = r.demands[refused_by]
    return admission.refusal(state.load(demand.key), demand, 'full', r.demands, blocking)
  end
  local home = r.demands[blocking[1]]
  local s = state.load(home.key)
  if home.max_waiting >= 0
      and (SUPERSEDES[home.conflict] and 0 or state.in_line(s)) >= home.max_waiting then
    return admission.refusal(s, home, 'queue', r.demands, blocking)
  end
  t = r
  if t.durable then t.process = '' end -- it waits with nobody behind it
  t.order, t.sequence = order, sequence
  for _, demand in ipairs(r.demands) do
    local each = state.load(demand.key)
    if order > each.order then each.order = order end
  end
  steps.note_names(t)
  tickets.add(t)
  local work = {}
  if not admission.take_place(t, blocking[1], work) then
    turns.serve(work)
    return 'replaced ' .. home.key
  end
  if #work > 0 then
    turns.serve(work)
    if holders.read(first, r.id) then return steps.ask(w) end
    t = tickets.read(first, r.id)
    if not t then return call('GET', ended) end
  end
  return steps.queued(t)
end

-- The keys of a job may have changed since it got its place. Then it leaves that place: it would have a
-- part of its slots, or wait behind itself. A delivery that runs is told as always (S18).
function steps.has_other_keys(r, keys)
  if #keys ~= #r.demands then return true end
  local asked = {}
  for _, demand in ipairs(r.demands) do asked[demand.key] = true end
  for _, key in ipairs(keys) do
    if not asked[key] then return true end
  end
  return false
end

-- By another first key it is not found there.
function steps.leave_other_keys(r, key)
  local h, t = turns.member(state.load(key, r.id), r.id)
  if h and h.claimed then
    local first = state.load(holders.keys_of(h.keys)[1])
    return 'held ' .. int(state.end_of(first, 'h' .. r.id) - now)
  end
  if h or t then steps.release({ 'release', r.id, key }) end
end

function steps.note_names(r)
  for _, demand in ipairs(r.demands) do state.note_name(state.load(demand.key), demand.name) end
end

-- The label of the oldest holder of a key: the one that is noted, or else the oldest among the first
-- ends; "-" if there is none.
function steps.blocker(s)
  local token, id = match(state.get(s, 'oldest') or '', '^(%d+) (.+)$')
  local oldest = id and holders.read(s, id)
  if oldest and oldest.token == tonumber(token) then return oldest.label end
  oldest = nil
  state.write_ends(s)
  for _, member in ipairs(call('ZRANGE', s.ends, 0, CHUNK - 1)) do
    local h = sub(member, 1, 1) == 'h' and holders.read(s, sub(member, 2))
    if h and (not oldest or h.token < oldest.token) then oldest = h end
  end
  return oldest and oldest.label or '-'
end

-- Where a waiting ticket stands.
function steps.queued(t)
  local home = t.demands[t.home]
  local s = state.load(home.key)
  local limit = s.paused and 0 or state.limit_of(s, home)
  local blocker = find(t.label, TRACED, 1, true) and ' ' .. steps.blocker(s) or ''
  if #t.demands > 1 then
    local blocking = turns.blocking_elsewhere(t)
    blocking[#blocking + 1] = t.home
    table.sort(blocking)
    blocker = (blocker == '' and ' -' or blocker) .. ' ' .. tickets.keys_at(t.demands, blocking)
  end
  return 'queued ' .. s.key .. ' ' .. int(limit) .. ' ' .. int(s.used) .. ' ' .. int(t.order) .. ' '
    .. (s.recheck > 0 and state.next_look or state.next_end)(s) .. blocker
end
