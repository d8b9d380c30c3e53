-- Queue: the waiters of a key, in the order in which they are served.
--
-- It has a part for those that need no worker to be woken, `s.queue`, and one for the jobs of each
-- gate, in `s.lists` by the gate's name (S17): those of a gate without a worker are left out. What
-- ends in "*" is no part of the queue: jobs that were evicted, of which their gate has to be notified.

local EVICTED = '*'

-- Makes a list, by the words of the field `gates` or for a first member.
function state.new_list(s, name, count)
  local evicted = sub(name, -1) == EVICTED
  s.lists = s.lists or {}
  s.lists[name] = {
    key = s.head .. ':jobs' .. s.rest .. '|' .. name, n = count, had = count > 0, now = {},
    evicted = evicted
  }
  if evicted then s.has_evicted = true end
  return s.lists[name]
end

function state.set_place(s, name, member, score)
  local change = score and 1 or -1
  s.changed, s.front = true, not score and state.leave_front(s.front, member) or nil
  if name == '' then
    s.queue_now[member] = score
    s.queue_changed, s.queued = true, s.queued + change
    return
  end
  local list = s.lists and s.lists[name] or state.new_list(s, name, 0)
  list.n, list.now[member], list.changed = list.n + change, score, true
  s.lists_changed, s.gates_changed = true, true
  if not list.evicted then s.queued = s.queued + change end
end

-- Gives a member of the queue another score.
function state.move_place(s, name, member, score)
  local list = s.lists[name]
  list.now[member], list.changed = score, true
  s.lists_changed, s.changed, s.front = true, true, nil
end

function state.write_queue(s)
  if s.queue_changed then
    if state.write_members(s.queue, s.queue_now, tostring) then s.had_queue = s.had_queue and s.saving end
    s.queue_now, s.queue_changed, s.written = {}, false, true
  end
  if s.lists_changed then
    for _, list in pairs(s.lists) do
      if list.changed then
        if state.write_members(list.key, list.now, tostring) then list.had = list.had and s.saving end
        list.now, list.changed, s.written = {}, false, true
      end
    end
    s.lists_changed = false
  end
end

-- How many of those in the queue need no worker to be woken.
function state.unnamed(s)
  local count = s.queued
  for _, list in pairs(s.lists or {}) do
    if not list.evicted then count = count - list.n end
  end
  return count
end

-- The parts of the queue with a member that are not dormant, by name; the others if `dormant`.
function state.parts(s, dormant)
  local parts, unnamed = {}, s.queued
  for name, list in pairs(s.lists or {}) do
    if list.n > 0 and not list.evicted then
      unnamed = unnamed - list.n
      if (presence.lasts(s, name) > now) == not dormant then parts[name] = list end
    end
  end
  if unnamed > 0 and not dormant then parts[''] = { key = s.queue, n = unnamed } end
  return parts
end

-- How many wait in the queue and are not dormant.
function state.in_line(s)
  if not s.lists then return s.queued end
  local count = 0
  for _, part in pairs(state.parts(s)) do count = count + part.n end
  return count
end

-- The member that is served next, its score, and the name of its part; nil if it is empty.
function state.first_in_queue(s)
  if s.queued == 0 then return nil end
  local front = s.front
  if not front then
    if s.queue_changed or s.lists_changed then state.write_queue(s) end
    if s.lists then
      front = state.first_of_parts(s)
    else
      front = call('ZRANGE', s.queue, 0, 1, 'WITHSCORES')
      front.name = ''
    end
    if front[1] == nil then -- cannot be, unless the server threw it away
      state.restore_queue(s)
      return state.first_in_queue(s)
    end
    s.front = front
  end
  return front[1] or nil, front[1] and tonumber(front[2]), front.name
end

-- Takes the first member out of what is known of the front; the one behind it is known, too.
function state.leave_front(front, member)
  if not front or front[1] ~= member or not front[3] then return nil end
  return { front[3], front[4], name = front.name }
end

-- The first members of the part that is next: two, where there is no other part.
function state.first_of_parts(s)
  local front, unnamed, parts = { false }, s.queued, 0
  local function compare(key, name)
    local first = call('ZRANGE', key, 0, 1, 'WITHSCORES')
    local score, other = tonumber(first[2]), tonumber(front[2])
    parts = parts + 1
    if not other or not score or score < other or (score == other and first[1] < front[1]) then
      front, first.name = first, name
    end
    return score
  end
  for name, list in pairs(s.lists) do
    if list.n > 0 and not list.evicted then
      unnamed = unnamed - list.n
      if presence.lasts(s, name) > now and not compare(list.key, name) then return {} end
    end
  end
  if unnamed > 0 and not compare(s.queue, '') then return {} end
  if parts > 1 then front[3] = nil end
  return front
end

-- Whether jobs of a gate wait here beside others, which go on when it has no worker any more.
function state.is_mixed(s)
  local parts, unnamed = 0, s.queued
  for _, list in pairs(s.lists) do
    if list.n > 0 and not list.evicted then parts, unnamed = parts + 1, unnamed - list.n end
  end
  return parts > 1 or (parts == 1 and unnamed > 0)
end
