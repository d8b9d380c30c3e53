-- Ends: when leases, and waiters' renewals, end.
--
-- Members of the ends are "h" (a holder) or "t" (a waiter) and the id. `s.first` is the earliest of
-- the ends, or, unless `s.sure`, a bound that no end lies before.

function state.set_end(s, member, due, is_new)
  s.ends_now[member] = due
  s.ends_changed, s.changed = true, true
  if due < s.first then
    s.first, s.sure = due, true
  elseif not is_new then
    s.sure = false
  end
end

function state.drop_end(s, member)
  s.ends_now[member] = false
  s.ends_changed, s.changed, s.sure = true, true, false
end

-- Writes changed members of a sorted set; returns whether some went. New ones come before old ones
-- go: a set that is never empty keeps its expiry.
function state.write_members(key, now_there, score_of)
  local added, removed
  for member, value in pairs(now_there) do
    if value then
      added = added or {}
      local count = #added
      added[count + 1], added[count + 2] = score_of(value), member
    else
      removed = removed or {}
      removed[#removed + 1] = member
    end
  end
  if added then state.write('ZADD', key, added) end
  if removed then state.write('ZREM', key, removed) end
  return removed ~= nil
end

function state.write_ends(s)
  if not s.ends_changed then return end
  if state.write_members(s.ends, s.ends_now, int) then s.had_ends = s.had_ends and s.saving end
  s.ends_now, s.ends_changed, s.written = {}, false, true
end

function state.end_of(s, member)
  local due = s.ends_now[member]
  if due ~= nil then return due end
  return tonumber(call('ZSCORE', s.ends, member) or nil)
end

-- The earliest end on a key, `math.huge` if there is none.
function state.first_end(s)
  if not s.sure then
    state.write_ends(s)
    local first = call('ZRANGE', s.ends, 0, 0, 'WITHSCORES')
    if not first[2] and s.used > 0 then -- cannot be, unless the server threw them away
      state.restore_ends(s)
      return state.first_end(s)
    end
    s.first = tonumber(first[2]) or math.huge
    s.sure = true
  end
  return s.first
end

-- Microseconds until the earliest known end on a key, "-" if none is known.
function state.next_end(s)
  if s.used == 0 and s.waiting == 0 then return '-' end
  local first = state.first_end(s)
  if first == math.huge then return '-' end
  return int(math.max(0, first - now))
end

-- The same for all that wait: the last worker may go whose job is first in the queue.
function state.next_look(s)
  if s.recheck > 0 and s.recheck < state.first_end(s) then return int(math.max(0, s.recheck - now)) end
  return state.next_end(s)
end
