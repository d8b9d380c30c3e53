-- Take the slot back from a holder, which is notified.
--
-- operation  "evict" id key (one of its keys)
-- reply      "1" if there was such a holder, else "0"

function steps.evict(w)
  local s = state.load(w[3])
  local h = holders.read(s, w[2]) and turns.member(s, w[2]) -- a waiter is not evicted
  if not h then return '0' end
  local work = holders.keys_of(h.keys)
  local t = not h.claimed and tickets.read(state.load(work[1]), h.id)
  if t and t.durable then -- a job that has not come for its slot yet is not lost
    turns.lapse(h, t)
    turns.pass_over({ t }, work)
    return '1'
  end
  turns.finish(h, 'evicted')
  turns.serve(work)
  return '1'
end

-- End the waiting of a ticket, or of one whose slot nobody took up yet; a job is notified when its gate
-- has a worker (S17).
--
-- operation  "dismiss" id key (one of its keys)
-- reply      "1" if there was one, else "0"

function steps.dismiss(w)
  local h, t = turns.member(state.load(w[3]), w[2])
  if h and not h.claimed then t = tickets.read(state.load(holders.keys_of(h.keys)[1]), h.id) end
  if not t or t.evicted then return '0' end
  local work = {}
  for i, demand in ipairs(t.demands) do work[i] = demand.key end
  if h then -- it waits, as far as its caller knows, and was in no queue
    holders.remove(h)
    t.home = 1
    tickets.add(t)
  else
    tickets.stand_up(t)
  end
  local demand = t.demands[t.home]
  local s = state.load(demand.key)
  if t.name ~= '' and presence.lasts(s, t.name) <= now then
    tickets.keep_evicted(t)
  else
    tickets.leave(t)
    tickets.remember(t, admission.refusal(s, demand, 'evicted'))
  end
  turns.serve(work)
  return '1'
end
