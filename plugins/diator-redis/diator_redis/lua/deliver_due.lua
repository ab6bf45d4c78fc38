-- Append messages that are due to a stream: scheduled ones to that of their topic, retries to that of their subscription.
-- KEYS: the stream, due (names by the millisecond when they are due), scheduled (the fields of each).  ARGV: at most how many.
-- Returns how many were due, and milliseconds until the next is (-1: there is none).

local events, due, scheduled = KEYS[1], KEYS[2], KEYS[3]
if redis.call('EXISTS', due) == 0 then return {0, -1} end
allow_growth(due)
local now = milliseconds()
local names = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, ARGV[1])
for _, name in ipairs(names) do
  local packed = redis.call('HGET', scheduled, name)
  if packed then redis.call('XADD', events, '*', unpack(cmsgpack.unpack(packed))) end
  redis.call('ZREM', due, name)
  redis.call('HDEL', scheduled, name)
end
local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
return {#names, first and math.max(0, math.ceil(first - now)) or -1}
