-- Part of the store's script, where that is in the docket's own Redis: brings a task forward in the
-- very step that served its ticket. A ticket is the docket's prefix, the task's key and its `when`.
local function wake(id)
  local ticket = string.gsub(id, '%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end)
  local prefix = match(opening, '^(.*:)limits:{$')
  local key, when = match(string.sub(ticket, #prefix + 1), '^(.*)#(.-)$')
  local event = '{"type": "state", "key": ' .. cjson.encode(key) .. ', "state": "queued"}'
  local keys = { prefix .. 'stream', prefix .. 'queue', prefix .. key, prefix .. 'runs:' .. key }
  return bring_forward(keys, { key, when, prefix .. 'state:' .. key, event }) == 1
end
