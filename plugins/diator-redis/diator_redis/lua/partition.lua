-- Settle and count entries of partitions, and give partitions up; each only by the lease that is in force.
-- KEYS: workers, bell, then for each topic five: leases, events, again, state, dead; the middle three get ":<partition>".
-- ARGV: group, consumer, milliseconds of a lease, how many groups, how many operations; for each group of entries partition,
-- token, number of the stream, "ack" (and 1 where there is state) or "count" (and the deliveries), how many ids, these; then
-- eight for each operation: partition, token, number of the stream, id, outcome, its argument, failures, deliveries; then three
-- for each partition: number, token, "renew" or "leave". "away" as the last argument: the worker waits for nothing any more.
-- Gives the numbers of groups, of operations, and the partitions, whose lease is not in force: three lists, in one array.

local workers, bell = KEYS[1], KEYS[2]
local group, consumer, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = milliseconds()
local topics = (#KEYS - 2) / 5
local checked = {}

local function key(topic, which) return KEYS[(topic - 1) * 5 + 2 + which] end

local function is_in_force(p, token)
  local name = p .. ' ' .. token
  if checked[name] == nil then
    checked[name] = true
    for topic = 1, topics do
      local value = redis.call('HGET', key(topic, 1), p) or ''
      if string.match(value, '^(.*) %d+$') ~= token then checked[name] = false end
    end
  end
  return checked[name]
end

local function stream_of(number, p)
  local topic, own = math.floor((number + 1) / 2), number % 2 == 0
  return key(topic, own and 3 or 2) .. ':' .. p, key(topic, 4) .. ':' .. p, topic, own
end

local lost_groups, lost_operations, lost_partitions, rings = {}, {}, {}, false
local at = 6

local function settle_group(stream, state, own, what, value, from, to)
  if what == 'ack' then
    redis.call('XACK', stream, group, unpack(ARGV, from, to))
    if own then redis.call('XDEL', stream, unpack(ARGV, from, to)) end
    if value == '1' then redis.call('HDEL', state, unpack(ARGV, from, to)) end
  else
    local command = {unpack(ARGV, from, to)}
    for _, word in ipairs({'RETRYCOUNT', value, 'JUSTID'}) do command[#command + 1] = word end
    redis.call('XCLAIM', stream, group, consumer, 0, unpack(command))
  end
end

for number_of_group = 0, tonumber(ARGV[4]) - 1 do
  local p, token, number, many = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 5])
  if is_in_force(p, token) then
    local stream, state, _, own = stream_of(number, p)
    for from = at + 6, at + 5 + many, 1000 do
      settle_group(stream, state, own, ARGV[at + 3], ARGV[at + 4], from, math.min(from + 999, at + 5 + many))
    end
  else
    lost_groups[#lost_groups + 1] = number_of_group
  end
  at = at + 6 + many
end

local after = at + tonumber(ARGV[5]) * 8
for i = at, after - 1, 8 do
  local p, token, number, id, outcome = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3], ARGV[i + 4]
  local argument, failures, deliveries = ARGV[i + 5], ARGV[i + 6], ARGV[i + 7]
  local stream, state, topic, own = stream_of(number, p)
  if not is_in_force(p, token) then
    lost_operations[#lost_operations + 1] = (i - at) / 8
  elseif outcome == 'park' then
    -- Once more after its reply was lost: it is parked, and not pending any more.
    if #redis.call('XPENDING', stream, group, id, id, 1) == 1 then
      local fields = fields_of(stream, id) or DELETED
      redis.call('XADD', key(topic, 5), '*', 'w', argument, unpack(recounted(fields, failures, deliveries)))
      done(stream, group, id, own)
      redis.call('HDEL', state, id)
    end
  else
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'RETRYCOUNT', deliveries, 'JUSTID')
    redis.call('HSET', state, id, failures .. ' ' .. string.format('%.0f', now + tonumber(argument)))
  end
end

local last = #ARGV
if ARGV[last] == 'away' then
  last = last - 1
  rings = redis.call('ZREM', workers, consumer) == 1
end
for i = after, last, 3 do
  local p, token, what = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if not is_in_force(p, token) then
    lost_partitions[#lost_partitions + 1] = tonumber(p)
  elseif what == 'renew' then
    local value = token .. ' ' .. string.format('%.0f', now + lease)
    for topic = 1, topics do redis.call('HSET', key(topic, 1), p, value) end
  else
    for topic = 1, topics do redis.call('HDEL', key(topic, 1), p) end
    rings = true
  end
end
if rings then
  redis.call('XADD', bell, 'MAXLEN', 10, '*', 'left', consumer)
  redis.call('PEXPIRE', bell, 86400000)
end
return flat(lost_groups, lost_operations, lost_partitions)
