-- The end of the general part, and the loop over the operations: each an atomic step, all in one
-- round trip.

lazy.__index = function(functions, name)
  local made = make(functions[1], name)
  functions[name] = made
  return made
end

return { steps = steps, save_all = state.save_all }
end -- of general()

local rest -- what `general` made

local THREE_WORDS, ACQUIRE_ONE = '^(%S+) (%S+) (%S+)$', '^' .. string.rep('(%S+) ', 19) .. '(%S+)$'

-- Why the keys may not be touched now, nil if they may: in a cluster, see redirects.py.
local function refusal() return nil end

-- Where memory is full the server refuses writes that may need some, until a script has written
-- once: so what keeps slots and gives them back begins with a write that needs none. (Nothing has
-- this name: no key has a brace behind its tag.) A function says in its flags whether it may.
local NEEDS_NONE = {
  release = true, withdraw = true, renew = true, evict = true, dismiss = true, sweep = true,
  offers = true, missed = true, refusals = true
}

local function run(named, argv, is_function)
  keys, opening, process = named, argv[1], argv[2]
  local refused = refusal()
  if refused then return refused end
  prefix, states, news, presences = match(opening, '^(.*):{$'), {}, {}, {}
  local server_time = call('TIME')
  now = server_time[1] * 1000000 + server_time[2]

  local replies, written, is_general = {}, is_function, false
  for i = 3, #argv do
    local op = argv[i]
    local name = match(op, '^%l+')
    if not written and NEEDS_NONE[name] then
      call('DEL', keys[1] .. '}:nothing')
      written = true
    end
    typed, its_fields, never_ended = nil, nil, nil
    local short_way = short_ways[name]
    local reply = short_way and short_way(op)
    if not reply then
      rest = rest or general()
      is_general = true
      reply = rest.steps[name](words_of(op, name == 'acquire' and ACQUIRE_ONE or THREE_WORDS))
      if find(reply, '%c') then reply = string.gsub(reply, '%c', '?') end -- one line, whatever a record has
    end
    replies[i - 2] = reply
    now = now + 1 -- two steps never happen at the same microsecond (S11)
  end
  if is_general then
    rest.save_all()
    for _, line in ipairs(news) do replies[#replies + 1] = line end
  end
  return table.concat(replies, '\n')
end

return run(KEYS, ARGV)
