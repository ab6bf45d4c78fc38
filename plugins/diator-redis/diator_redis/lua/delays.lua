-- What waits: a sorted set of names, by the millisecond when they are due, and a hash that has the fields of each.

local now = milliseconds()

-- Append what is due to a stream, at most so many; gives how many there were.
local function move_due(later, kept, stream, limit)
  local names = redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, limit)
  for _, name in ipairs(names) do
    local packed = redis.call('HGET', kept, name)
    if packed then redis.call('XADD', stream, '*', unpack(cmsgpack.unpack(packed))) end
    redis.call('ZREM', later, name)
    redis.call('HDEL', kept, name)
  end
  return #names
end

-- Milliseconds until the next is due (-1: none).
local function next_due(later)
  local first = redis.call('ZRANGE', later, 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, math.ceil(tonumber(first[2]) - now)) or -1
end
