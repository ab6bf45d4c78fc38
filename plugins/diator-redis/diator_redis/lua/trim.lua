-- Remove old entries that every group has settled, and find groups without workers.
-- KEYS: the stream.  ARGV: the length and the age in milliseconds beyond which entries are removed (-1: never), and the age in
-- milliseconds from which a backlog without a worker counts as abandoned. Returns name and age of backlog of each such group.

local stream, length, age, idle_limit = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('EXISTS', stream) == 0 then return {} end
local now, abandoned, floor = milliseconds(), {}, nil

local function before(one, other)
  local a, b = string.match(one, '^(%d+)-(%d+)$')
  local c, d = string.match(other, '^(%d+)-(%d+)$')
  a, b, c, d = tonumber(a), tonumber(b), tonumber(c), tonumber(d)
  return a < c or (a == c and b < d)
end

local function is_read(group)
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    if field(consumer, 'idle') < idle_limit then return true end
  end
end

for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local name, position = field(group, 'name'), field(group, 'last-delivered-id')
  local unread = redis.call('XRANGE', stream, '(' .. position, '+', 'COUNT', 1)[1]
  local oldest = redis.call('XPENDING', stream, name)[2] or (unread and unread[1])
  if oldest then
    if not floor or before(oldest, floor) then floor = oldest end
    local backlog = now - string.match(oldest, '^%d+')
    if backlog > idle_limit and not is_read(name) then abandoned[#abandoned + 1] = {name, tostring(backlog)} end
  end
end

if length >= 0 and redis.call('XLEN', stream) > length then
  redis.call('XTRIM', stream, floor and 'MINID' or 'MAXLEN', '~', floor or length)
end
if age >= 0 then
  local limit = string.format('%.0f-0', math.max(0, now - age))
  redis.call('XTRIM', stream, 'MINID', '~', floor and before(floor, limit) and floor or limit)
end
return abandoned
