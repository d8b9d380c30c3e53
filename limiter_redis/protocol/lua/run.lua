-- The end of the general part, and the loop over the operations: each an atomic step, all in one
-- round trip.

lazy.__index = function(functions, name)
  local made = make(functions[1], name)
  functions[name] = made
  return made
end

return { steps = steps, save_all = state.save_all, news = news }
end -- of general()

local replies, rest = {}, nil

-- Where memory is full the server refuses writes that may need some, until a script has written
-- once: so what keeps slots and gives them back begins with a write that needs none. (Nothing has
-- this name: no key has a brace behind its tag.)
local NEEDS_NONE = {
  release = true, withdraw = true, renew = true, evict = true, dismiss = true, sweep = true,
  offers = true, missed = true, refusals = true
}
local written = false
for i = 3, #ARGV do
  local op = ARGV[i]
  local name = match(op, '^%l+')
  if NEEDS_NONE[name] and not written then
    call('DEL', KEYS[1] .. '}:nothing')
    written = true
  end
  local short_way = short_ways[name]
  local reply = short_way and short_way(op)
  if not reply then
    rest = rest or general()
    local words = {}
    for word in string.gmatch(op, '%S+') do words[#words + 1] = word end
    reply = string.gsub(rest.steps[name](words), '%c', '?') -- one line, whatever a record has
  end
  replies[i - 2] = reply
  now = now + 1 -- two steps never happen at the same microsecond (S11)
end
if rest then
  rest.save_all()
  for _, line in ipairs(rest.news) do replies[#replies + 1] = line end
end
return table.concat(replies, '\n')
