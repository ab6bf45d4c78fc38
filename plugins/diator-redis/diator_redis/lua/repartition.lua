-- Give a topic another number of partitions, if no group has anything left in one of them.
-- KEYS: the topic, its events (a name that gets ":<partition>").  ARGV: how many partitions there shall be, how many there are.
-- Gives the names of streams and groups that are not done yet; nothing was changed then.

local wanted, events = tonumber(ARGV[1]), KEYS[2]
local stored = tonumber(redis.call('HGET', KEYS[1], 'partitions') or ARGV[2])
local busy = {}

for p = 0, stored - 1 do
  local stream = events .. ':' .. p
  if redis.call('EXISTS', stream) == 1 then
    local last = field(redis.call('XINFO', 'STREAM', stream), 'last-generated-id')
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      if field(group, 'pending') > 0 or field(group, 'last-delivered-id') ~= last then
        local unread = redis.call('XRANGE', stream, '(' .. field(group, 'last-delivered-id'), '+', 'COUNT', 1)
        if field(group, 'pending') > 0 or #unread > 0 then busy[#busy + 1] = {stream, field(group, 'name')} end
      end
    end
  end
end
if #busy > 0 then return busy end

redis.call('HSET', KEYS[1], 'partitions', wanted)
local groups = redis.call('EXISTS', events) == 1 and redis.call('XINFO', 'GROUPS', events) or {}
for p = stored, wanted - 1 do
  for _, group in ipairs(groups) do
    redis.pcall('XGROUP', 'CREATE', events .. ':' .. p, field(group, 'name'), '0', 'MKSTREAM')
  end
end
return {}
