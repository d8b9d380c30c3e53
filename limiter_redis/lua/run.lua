-- The end of the general part, and the loop over the operations: each an atomic step, all in one
-- round trip.

return { steps = steps, save_all = save_all, news = news }
end -- of general()

local replies, rest = {}, nil
for i, op in ipairs(cjson.decode(ARGV[3])) do
  local short_way = short_ways[op[1]]
  -- Once the general part holds states in memory, every operation has to go through it.
  local reply = not rest and short_way and short_way(op)
  if not reply then
    rest = rest or general()
    reply = rest.steps[op[1]](op)
  end
  replies[i] = reply
  now = now + 1 -- two steps never happen at the same microsecond (S11)
end
if rest then
  rest.save_all()
  for _, line in ipairs(rest.news) do replies[#replies + 1] = line end
end
return table.concat(replies, '\n')
