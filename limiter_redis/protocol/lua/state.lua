-- The state of a key while a call lasts: read once, changed here, written once (`save_all`).
--
-- The rules S1 to S23 are those of limiter_core/store.py; the layout is shown in
-- docs/reference/redis-layout.md. Names that are not defined here stand in entry.lua.

local function general()

local FOREVER = 604800000000 -- how long a durable ticket is kept: 7 days
local UNKNOWN = 60000000 -- when to look at a key of which no end is known
local BACKLOG = 86400000 -- milliseconds that a job's bad end is remembered until it asks: a day
local REMEMBER = 60000 -- milliseconds that a bad end is remembered; at least two leases
local ARGUMENTS = 1000 -- of one command at the most: Lua cannot pass on more than 8,000

-- Wakes the job of a durable ticket, whose id it is given as a word; returns whether it did. A queue
-- in the same Redis, and in a cluster in the same slot, puts its own in this place (`RedisStore.wake`).
local function wake(id) return false end

-- The functions of this file and of those that follow. To make them all takes Lua longer than most
-- calls last, so each is made when it is first asked for: `make`, which script.py puts together
-- of them, does it by name.
local lazy = {}
local function functions_of(file) return setmetatable({ file }, lazy) end
local state, holders, tickets = functions_of('state'), functions_of('holders'), functions_of('tickets')
local presence = functions_of('presence')
local admission, turns = functions_of('admission'), functions_of('turns')
local policies = functions_of('policies')
local steps = functions_of('steps') -- the operations

-- A word in place of a text that may be empty; back with `untext`.
function state.text(value) if value == '' then return '-' end return value end
function state.untext(value) if value == '-' then return '' end return value end

-- News: to the calling process in the reply, to any other by its channel. Processes that use a
-- cluster have names with an "s" in front, and listen at the node that has the tag of the step.
function state.notify(receiver, line)
  if receiver == '' then return end
  if receiver == process then
    news[#news + 1] = line
  elseif sub(receiver, 1, 1) == 's' then
    redis.pcall('SPUBLISH', (prefix or match(keys[1], '^{.-}')) .. ':process:' .. receiver, line)
  else -- messages only hint
    redis.pcall('PUBLISH', (prefix or sub(opening, 2, -2)) .. ':process:' .. receiver, line)
  end
end

-- Says that the waiting of a durable ticket has ended: to the process that ran the step, unless its job was
-- woken right here; returns whether it was. One that is repeated is called "repeat".
function state.notice(t, answer, kind)
  local called, woken = pcall(wake, t.id)
  if called and woken then return true end
  local name = t.name ~= '' and t.name .. '|' or ''
  news[#news + 1] = (kind or 'notice') .. ' ' .. t.id .. ' ' .. name .. t.payload .. ' ' .. answer
  return false
end

-- Fields ------------------------------------------------------------------------------------------

-- Returns a field of a state, false if it is missing.
function state.get(s, field)
  local value = s.fields[field]
  if value == nil then
    value = s.kind == 'hash' and call('HGET', s.state, field)
    s.fields[field] = value
  end
  return value
end

-- Changes a field of a state; false removes it.
function state.set(s, field, value)
  s.fields[field] = value
  s.dirty[field] = true
  s.changed = true
end

-- Keys --------------------------------------------------------------------------------------------

local NOTHING = {}
local NUMBERS = { 'used', 'waiting', 'queued', 'token', 'order', 'expires', 'fair', 'jobs', 'offered', 'recheck' }

function state.outlive(s, due)
  s.changed = true
  if due + GRACE > s.need then s.need = due + GRACE end
end

-- Returns the state of a key; with what it has of a request, which is read along.
function state.load(key, id)
  local s = states[key]
  if s then return s end
  local head, rest = around(key)
  local name, m, kind = head .. ':state' .. rest, NOTHING, its_type
  if typed ~= name then kind = call('TYPE', name).ok end
  if kind == 'hash' then
    m = typed == name and its_fields or read_state(name, id or '')
  elseif kind ~= 'string' and kind ~= 'none' then
    error('WRONGTYPE ' .. name)
  end
  local used, in_line = m[1] and tonumber(m[1]) or 0, m[2] and tonumber(m[2]) or 0
  local queued, token = m[3] and tonumber(m[3]) or 0, m[4] and tonumber(m[4]) or 0
  local order, expires = m[5] and tonumber(m[5]) or 0, m[6] and tonumber(m[6]) or 0
  local fair, jobs = m[7] and tonumber(m[7]) or 0, m[8] and tonumber(m[8]) or 0
  local offered, recheck = m[9] and tonumber(m[9]) or 0, m[10] and tonumber(m[10]) or 0
  local override, paused = m[11] and tonumber(m[11]) or nil, m[12] == '1'
  -- All fields at once: to add them one by one takes longer than to read them.
  s = {
    key = key, head = head, rest = rest, common = rest ~= '' and head or state.common_of(''),
    state = name, ends = head .. ':ends' .. rest, queue = head .. ':queue' .. rest, kind = kind,
    used = used, waiting = in_line, queued = queued, token = token, order = order, expires = expires,
    fair = fair, jobs = jobs, offered = offered, recheck = recheck,
    before = { used, in_line, queued, token, order, expires, fair, jobs, offered, recheck },
    override = override, paused = paused, name = m[14] or '-',
    was_kept = override ~= nil or paused, had_ends = used > 0, had_queue = queued > 0,
    fields = {}, dirty = {}, holders = {}, tickets = {}, ends_now = {}, queue_now = {}, need = 0,
    first = kind == 'hash' and 0 or math.huge, sure = kind ~= 'hash', lists = nil, changed = false,
    ends_changed = false, queue_changed = false, lists_changed = false, written = false,
    saving = false, front = nil, reaped_at = 0, unreaped = false, noted = nil
  }
  states[key] = s
  if kind == 'hash' then
    if id then s.fields['h:' .. id], s.fields['t:' .. id] = m[15], m[16] end
    if m[13] then
      for gate, count in string.gmatch(m[13], '(%S+) (%d+)') do state.new_list(s, gate, tonumber(count)) end
      s.had_queue = state.unnamed(s) > 0
    end
  elseif kind == 'string' then
    holders.adopt(s, call('GET', name))
    s.changed = false -- it keeps its form unless something changes
  end
  return s
end

-- Whether nothing needs the key to be remembered (S14).
function state.is_unused(s) return s.used == 0 and s.waiting == 0 and not s.override and not s.paused end

-- Notes the name of the limit with which a new request is admitted or queued, "-" for none; that of
-- earlier ones is forgotten if nothing uses the key (S20).
function state.note_name(s, name)
  if name == '-' and not (s.name ~= '-' and state.is_unused(s)) then return end
  if name ~= s.name then
    s.name = name
    state.set(s, 'name', name ~= '-' and name)
  end
end

-- What begins the names of all that is kept for the durable tickets of a scope together; keys
-- without a scope share it.
function state.common_of(scope)
  if scope ~= '' then return opening .. scope .. '}' end
  return prefix or sub(opening, 1, -2) .. '}'
end

-- When somebody has to look at a key on which a durable ticket waits.
function state.next_due(s)
  local first = state.first_end(s)
  if s.recheck > 0 and s.recheck < first and state.is_mixed(s) then return s.recheck end
  return first
end

-- Notes when to look at a key; at the latest in a minute. The index of the keys on which a durable
-- ticket waits, or was handed a slot, has these times as scores (S17).
function state.note(s, at)
  at = math.min(at, now + UNKNOWN)
  if s.noted and s.noted <= at then return end
  s.noted = at
  local index = s.common .. ':offers'
  call('ZADD', index, 'LT', int(at), s.key)
  call('PEXPIRE', index, int(FOREVER / 1000))
end

-- Keeps for a while how a request ended, for when it asks: at least until its next renewal. A job
-- that got this answer asks when a worker is free, which may take long.
function state.remember(s, r, how, is_job)
  if r.id == never_ended then never_ended = nil end
  local time = is_job and BACKLOG or math.max(REMEMBER, r.lease / 500)
  call('SET', s.head .. ':ended:' .. r.id, how, 'PX', int(time))
end

-- Calls a command with arguments, of which there may be many.
function state.write(command, key, arguments)
  if #arguments <= ARGUMENTS then
    if arguments[1] then call(command, key, unpack(arguments)) end
    return
  end
  for i = 1, #arguments, ARGUMENTS do
    call(command, key, unpack(arguments, i, math.min(#arguments, i + ARGUMENTS - 1)))
  end
end

function state.write_fields(s)
  if s.kind == 'string' then call('DEL', s.state) end
  local written, removed, count, before = {}, nil, 0, s.before
  for i = 1, #NUMBERS do
    local number = s[NUMBERS[i]]
    if number ~= before[i] then
      written[count + 1], written[count + 2] = NUMBERS[i], int(number)
      before[i], count = number, count + 2
    end
  end
  if s.gates_changed then
    local gates = ''
    for name, list in pairs(s.lists or {}) do
      if list.n > 0 then gates = gates .. name .. ' ' .. list.n .. ' ' end
    end
    s.fields.gates, s.dirty.gates, s.gates_changed = gates ~= '' and gates, true, false
  end
  for field in pairs(s.dirty) do
    local value = s.fields[field]
    if value then
      written[count + 1], written[count + 2] = field, value
      count = count + 2
    else
      removed = removed or {}
      removed[#removed + 1] = field
    end
  end
  state.write('HSET', s.state, written)
  if removed and s.kind == 'hash' then state.write('HDEL', s.state, removed) end
  s.dirty, s.kind, s.written = {}, 'hash', true
end

function state.expire(s, key, changes, kept)
  if not changes then return end
  if kept then call('PERSIST', key) else call('PEXPIREAT', key, int(s.expires / 1000)) end
end

-- Writes what changed, drops keys that nobody uses (S14), sets expiries that no member outlives.
function state.save_all()
  for _, s in pairs(states) do
    if s.changed then
      if state.is_unused(s) then
        if s.kind ~= 'none' or s.written then
          call('DEL', s.state, s.ends, s.queue)
          for _, list in pairs(s.lists or {}) do call('DEL', list.key) end
        end
      else
        local was_new = s.kind ~= 'hash'
        s.saving = true
        local longer = s.need > s.expires
        -- Longer than needed, so that the next steps need not say it again.
        if longer then s.expires = s.need + GRACE end
        state.write_ends(s)
        state.write_queue(s)
        state.write_fields(s)
        local kept = s.override or s.paused
        -- An operator's word stays for ever, and so must all that belongs to it.
        local all = longer or s.was_kept
        if kept then all = not s.was_kept end
        if all or not kept then
          state.expire(s, s.state, all or was_new, kept)
          state.expire(s, s.ends, all or not s.had_ends, kept)
          if s.lists then
            state.expire(s, s.queue, all or not (s.had_queue or state.unnamed(s) == 0), kept)
            for _, list in pairs(s.lists) do
              state.expire(s, list.key, all or not (list.had or list.n == 0), kept)
            end
          else
            state.expire(s, s.queue, all or not (s.had_queue or s.queued == 0), kept)
          end
        end
      end
    end
  end
end

-- The number by which a demand is judged (S12).
function state.limit_of(s, demand) return s.override or demand.limit end

function state.fits(s, demand) return s.used + demand.cost <= state.limit_of(s, demand) end
