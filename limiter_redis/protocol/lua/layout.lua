-- The layout of a namespace: the processes that share it have to agree on one.
--
-- In the string `:layout` of the namespace: its number, the release that noted it, and when. All
-- releases read it there. It is kept for longer than a ticket is without a process.

-- Notes the layout of the caller ("number release") unless there is one; returns the one in force.
function state.agreed_layout(own)
  local name = state.common_of('') .. ':layout'
  local found = redis.pcall('GET', name)
  if type(found) == 'table' then return '-' end -- it may not be read: nothing is known
  local number, release, since = match(found or own .. ' 0', '^(%d+) (%S+) (%d+)$')
  if not found and state.lacks_layout() then return '1 -' end
  if number == match(own, '^%d+') and now - since > 3600000000 then
    -- A caller without the right to write leaves it to others.
    redis.pcall('SET', name, number .. ' ' .. release .. ' ' .. int(now), 'EX', 691200) -- 8 days
  end
  return number and number .. ' ' .. release or found
end

-- Whether there are processes that note none: the names of their channels have no database.
function state.lacks_layout()
  if not match(process, '^%d+:') then return false end -- a cluster does not show those of other nodes
  local namespace = string.gsub(prefix or string.sub(opening, 2, -2), '[\\*?%[%]]', '\\%0')
  local channels = redis.pcall('PUBSUB', 'CHANNELS', namespace .. ':process:' .. string.rep('[0-9a-f]', 16))
  return #channels > 0
end
