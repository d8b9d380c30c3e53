-- Start the lease time of a lease or ticket again. Only updates, never creates (S10).
--
-- operation  "renew" id key (its first one), and for a job perhaps the claimant: a lease that another
--            took up is not its own (S18)
-- reply      "alive" | "preempted" | "look" (a slot was handed over: ask again)
--            | "waiting" key microseconds-to-next-end ("-") | "lost" reason | "gone" (nobody knows why)

function steps.renew(w)
  local id, s = w[2], state.load(w[3], w[2])
  local h, t = turns.member(s, id)
  if h then
    if w[4] and h.claimant ~= state.untext(w[4]) then return 'lost expired' end
    if not h.claimed then return 'look' end -- the claim time is not prolonged
    local due = holders.due_of(h, h.lease)
    for _, key in ipairs(holders.keys_of(h.keys)) do
      local each = state.load(key)
      if holders.read(each, id) then
        state.set_end(each, 'h' .. id, due)
        state.outlive(each, due)
      end
    end
    return h.preempted and 'preempted' or 'alive'
  end
  if not t then return call('GET', s.head .. ':ended:' .. id) or 'gone' end
  local home = state.load(t.demands[t.home].key)
  if not t.durable then
    state.set_end(home, 't' .. id, now + t.lease)
    for _, demand in ipairs(t.demands) do state.outlive(state.load(demand.key), now + t.lease) end
  end
  turns.serve({ home.key }) -- a step that left work over may not have been received (S16)
  return 'waiting ' .. home.key .. ' ' .. (home.recheck > 0 and state.next_look or state.next_end)(home)
end
