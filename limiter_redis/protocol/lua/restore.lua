-- What a server that is short of memory threw away, while it kept the state: made anew of the
-- records there, with a whole lease for each.

local function records(s, kind)
  state.write_fields(s)
  local fields, found = call('HKEYS', s.state), {}
  for _, field in ipairs(fields) do
    if sub(field, 1, 2) == kind then found[#found + 1] = sub(field, 3) end
  end
  return found
end

function state.restore_ends(s)
  local used, offered = 0, 0
  for _, id in ipairs(records(s, 'h:')) do
    local h = holders.read(s, id)
    used, offered = used + h.cost, offered + (h.claimed and 0 or 1)
    state.set_end(s, 'h' .. id, holders.due_of(h, h.lease), true)
  end
  for _, id in ipairs(records(s, 't:')) do
    local t = tickets.read(s, id)
    if t and t.demands[t.home].key == s.key and not holders.read(s, id) then
      if not t.durable then state.set_end(s, 't' .. id, now + t.lease, true) end
      if t.deferred > 0 then state.set_end(s, 'd' .. id, t.deferred, true) end
      policies.note_end(s, t, true)
    end
  end
  s.used, s.offered, s.had_ends, s.sure = used, offered, false, true
end

function state.restore_queue(s)
  s.queued, s.had_queue, s.lists, s.lists_changed, s.gates_changed = 0, false, nil, false, true
  for _, id in ipairs(records(s, 't:')) do
    local t = tickets.read(s, id)
    if t and t.demands[t.home].key == s.key and not holders.read(s, id) then
      state.set_place(s, t.part, tickets.member(t), tickets.score(t))
    end
  end
end
