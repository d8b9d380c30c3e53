-- Start the lease time of a lease or ticket again. Only updates, never creates (S10).
--
-- operation  "renew", id, key (its first one)
-- reply      "alive" | "preempted" | "look" (a slot was handed over: ask again)
--            | "waiting" microseconds-to-next-end ("-") | "lost" reason | "gone" (nobody knows why)

steps.renew = function(op)
  local id, s = op[2], load(op[3])
  local h, t = member(s, id)
  if h then
    if not h.claimed then return 'look' end -- the claim time is not prolonged
    local due = due_of(h, h.lease)
    for _, key in ipairs(keys_of(h.keys)) do
      local each = load(key)
      call('ZADD', each.ends, 'XX', int(due), 'h' .. id)
      outlive(each, due)
    end
    return h.preempted and 'preempted' or 'alive'
  end
  if not t then return call('GET', s.head .. ':ended:' .. id) or 'gone' end
  if not t.durable then
    call('ZADD', load(t.demands[t.home].key).ends, 'XX', int(now + t.lease), 't' .. id)
    for _, demand in ipairs(t.demands) do outlive(load(demand.key), now + t.lease) end
  end
  return 'waiting ' .. next_end(load(t.demands[t.home].key))
end
