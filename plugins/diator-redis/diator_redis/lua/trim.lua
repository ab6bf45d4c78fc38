-- Remove old entries of a stream that no group needs any more, and tell of groups that nobody reads.
-- KEYS: the stream.  ARGV: the length and the age in milliseconds beyond which entries go (-1: none), the age in milliseconds of
-- a backlog that nobody reads. Gives for each such group its name and how old its backlog is.

local stream, length, age, patience = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('EXISTS', stream) == 0 then return {} end
local now, abandoned, floor = milliseconds(), {}, nil
local last = field(redis.call('XINFO', 'STREAM', stream), 'last-generated-id')

local function parts(id)
  local a, b = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(a), tonumber(b)
end

local function before(one, other)
  local a, b = parts(one)
  local c, d = parts(other)
  return a < c or (a == c and b < d)
end

-- The first entry that a group has not read.
local function unread(position)
  local found = redis.call('XRANGE', stream, '(' .. position, '+', 'COUNT', 1)
  return found[1] and found[1][1]
end

local function seen_within(group, milliseconds)
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    if field(consumer, 'idle') < milliseconds then return true end
  end
  return false
end

local function is_behind(position, pending)
  return pending > 0 or before(position, last)
end

for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local name, position = field(group, 'name'), field(group, 'last-delivered-id')
  local oldest = redis.call('XPENDING', stream, name)[2]
  local needed = oldest or position
  if is_behind(position, field(group, 'pending')) then
    if not floor or before(needed, floor) then floor = needed end
    local waiting = oldest or unread(position)
    local backlog = waiting and now - parts(waiting) or 0
    if backlog > patience and not seen_within(name, patience) then
      abandoned[#abandoned + 1] = {name, tostring(backlog)}
    end
  end
end

if length >= 0 and redis.call('XLEN', stream) > length then
  if floor then
    redis.call('XTRIM', stream, 'MINID', '~', floor)
  else
    redis.call('XTRIM', stream, 'MAXLEN', '~', length)
  end
end
if age >= 0 then
  local limit = string.format('%.0f-0', math.max(0, now - age))
  if floor and before(floor, limit) then limit = floor end
  redis.call('XTRIM', stream, 'MINID', '~', limit)
end
return abandoned
