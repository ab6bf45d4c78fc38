-- Redeliver all entries that a consumer holds, without counting their delivery; or, without a consumer, those whose lease has expired.
-- ARGV goes on: milliseconds of a lease, at most how many of each stream, milliseconds after which an idle consumer is deleted.
-- Returns the largest number of entries that one stream had.

local lease, limit, idle_limit = ARGV[FIRST], ARGV[FIRST + 1], tonumber(ARGV[FIRST + 2])
local now, most = milliseconds(), 0

-- If the server's clock goes back, leases and delays would last as long as the jump. So all leases start again.
local function restart_leases(stream)
  local from, pending = '-', nil
  repeat
    pending = redis.call('XPENDING', stream, group, from, '+', 1000)
    for _, entry in ipairs(pending) do
      if fields_of(stream, entry[1]) then redis.call('XCLAIM', stream, group, entry[2], 0, entry[1], 'IDLE', 0, 'JUSTID') end
      from = '(' .. entry[1]
    end
  until #pending < 1000
end

local jump = tonumber(redis.call('HGET', meta, 'wall') or 0) - now
redis.call('HSET', meta, 'wall', string.format('%.0f', now))
if jump > 1000 then
  local delayed = redis.call('ZRANGE', due, 0, -1, 'WITHSCORES')
  for i = 1, #delayed, 2 do redis.call('ZADD', due, string.format('%.0f', delayed[i + 1] - jump), delayed[i]) end
  for at = 1, OWN do restart_leases(KEYS[at + 5]) end
end

for at = 1, OWN do
  local stream, is_expired = KEYS[at + 5], consumer == ''
  local pending
  if is_expired then
    pending = redis.call('XPENDING', stream, group, 'IDLE', lease, '-', '+', limit)
  else
    pending = redis.call('XPENDING', stream, group, '-', '+', limit, consumer)
  end
  for _, entry in ipairs(pending) do
    redis.call('XADD', redelivery, '*', unpack(counted(at, entry[1], 0, is_expired and entry[4] or 0)))
    remove(at, entry[1])
  end
  most = math.max(most, #pending)
  for _, other in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local name = field(other, 'name')
    if field(other, 'pending') == 0 and (name == consumer or field(other, 'idle') > idle_limit) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
    end
  end
end
return most
