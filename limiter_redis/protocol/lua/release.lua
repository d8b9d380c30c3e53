-- Remove the lease or the ticket of an id, and hand on what came free (S5, S6, S15, S19).
--
-- operation  "release" id key (one of its keys), and perhaps one of:
--            "for_good": a request of this id that is still on its way, over a connection that was
--            given up, takes nothing when it arrives
--            "of" claimant: only a lease that this claimant took up (S18)
--            "gone" claimant: as "of"; and a request of its that is still on its way takes nothing
-- reply      "1" if there was one, else "0"

local FOR_GOOD = ' for_good'

function steps.release(w)
  local id, s = w[2], state.load(w[3], w[2])
  local h, t = turns.member(s, id)
  local ended = s.head .. ':ended:' .. id
  if w[5] then
    -- Beside how the job ended before, and beside other deliveries that are gone.
    if w[4] == 'gone' then call('SET', ended .. '|' .. w[5], 'gone', 'PX', REMEMBER) end
    if not h or not h.claimed or h.claimant ~= state.untext(w[5]) then return '0' end
  elseif w[4] == 'for_good' then
    call('SET', ended, 'replaced ' .. s.key .. FOR_GOOD, 'PX', REMEMBER)
  elseif not h and not t then
    -- How it ended needs no memory any more; but a request may be on its way still.
    local how = call('GET', ended)
    if sub(how or '', -#FOR_GOOD) ~= FOR_GOOD then call('DEL', ended) end
    if w[1] == 'withdraw' then tickets.drop_notice(s, id) end
  end
  if h then
    local work = holders.keys_of(h.keys)
    holders.remove(h)
    if not h.claimed then tickets.forget(state.load(work[1]), id) end
    turns.serve(work)
    return '1'
  end
  if t then
    local work = {}
    for _, demand in ipairs(t.demands) do work[#work + 1] = demand.key end
    tickets.remove(t)
    turns.serve(work)
    return '1'
  end
  return '0'
end

-- Remove what a release would, unless it is a lease that was taken up.
--
-- operation  "withdraw" id key (one of its keys)
-- reply      "1" if there was one, else "0"

function steps.withdraw(w)
  local h = turns.member(state.load(w[3]), w[2])
  if h and h.claimed then return '0' end
  return steps.release(w)
end
