-- Settle entries or renew their leases, each only while this consumer holds it. Returns the numbers of the entries that it does not
-- hold. ARGV goes on with four arguments for each entry: number of its stream, id, outcome, its argument.

local function settle(at, id, outcome, argument)
  if outcome == 'retry' and tonumber(argument) > 0 then
    local name = KEYS[at + 5] .. '/' .. id
    redis.call('HSET', scheduled, name, cmsgpack.pack(counted(at, id, 1, 1)))
    redis.call('ZADD', due, milliseconds() + argument, name)
  elseif outcome == 'retry' then
    redis.call('XADD', redelivery, '*', unpack(counted(at, id, 1, 1)))
  elseif outcome == 'release' then
    redis.call('XADD', redelivery, '*', unpack(counted(at, id, 0, 0)))
  elseif outcome == 'dead_letter' then
    redis.call('XADD', dead_letters, '*', 'w', argument, unpack(counted(at, id, 0, 1)))
  end
  remove(at, id)
end

local lost = {}
for i = FIRST, #ARGV, 4 do
  local at, id, outcome, argument = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local stream = KEYS[at + 5]
  if #redis.call('XPENDING', stream, group, id, id, 1, consumer) == 0 then
    lost[#lost + 1] = (i - FIRST) / 4
  elseif outcome ~= 'renew' then
    settle(at, id, outcome, argument)
  elseif fields_of(stream, id) then -- Redis 7 drops a pending entry that is claimed after it was deleted
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
  end
end
return lost
