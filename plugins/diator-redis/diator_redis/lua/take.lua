-- Read what there is in partitions: those that this worker has, and others that are free, which it leases with that.
-- KEYS: workers, bell, then four for each topic: leases, events, again, state; the last three are names that get ":<partition>".
-- ARGV: group, consumer, token for new leases, milliseconds of a lease, partitions, how many entries, the partition to begin
-- with, milliseconds after which a worker is forgotten, then three for each partition that it has: number, token, what to do
-- ("read", "keep": renew the lease only, "sync": read, and give all that is pending as well,
-- under the new token).
-- Gives: now, how many partitions are this worker's share, milliseconds until the next lease of another ends (-1: none), the
-- partitions it has lost, those that are free, and for each that has something: number, token, and for each of its streams
-- the entries that wait in place (id, fields, deliveries, failures, milliseconds until it is due), the new ones, and 1 where
-- there are no more.

local workers, bell = KEYS[1], KEYS[2]
local group, consumer, token, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local partitions, limit, first = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local now = milliseconds()
local expires = string.format('%.0f', now + lease)
local topics = (#KEYS - 2) / 4

local function leases(topic) return KEYS[topic * 4 - 1] end

local function stream_names(p)
  local names = {}
  for topic = 1, topics do
    names[#names + 1] = KEYS[topic * 4] .. ':' .. p
    names[#names + 1] = KEYS[topic * 4 + 1] .. ':' .. p
  end
  return names
end

local function state_of(p, number)
  return KEYS[math.floor((number + 1) / 2) * 4 + 2] .. ':' .. p
end

-- Who has a partition, and until when; it must be free in all topics.
local function holder(p)
  local who, ends = nil, 0
  for topic = 1, topics do
    local value = redis.call('HGET', leases(topic), p)
    local found, when = string.match(value or '', '^(.*) (%d+)$')
    if found and tonumber(when) >= ends then who, ends = found, tonumber(when) end
  end
  return who, ends
end

local function set_lease(p, value)
  for topic = 1, topics do redis.call('HSET', leases(topic), p, value .. ' ' .. expires) end
end

local function in_place(p, number, name)
  local found = {}
  for _, entry in ipairs(redis.call('XPENDING', name, group, '-', '+', 100000)) do
    local state = redis.call('HGET', state_of(p, number), entry[1]) or ''
    local failures, due = string.match(state, '^(%d+) (%d+)$')
    found[#found + 1] = {
      entry[1], fields_of(name, entry[1]) or false, entry[4], tonumber(failures or 0), math.max(0, tonumber(due or 0) - now)
    }
  end
  return found
end

local room = limit

-- All that is left to read is read by later calls: only what waits in place must be known at once.
local function read(p, taking)
  local found, any = {}, false
  local taken = 0
  for number, name in ipairs(stream_names(p)) do
    local waiting = taking and in_place(p, number, name) or {}
    local new, is_all = {}, 0
    if room > 0 then
      local reply = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', room, 'STREAMS', name, '>')
      new = reply and reply[1][2] or new
      is_all = #new < room and 1 or 0
    end
    any = any or #waiting > 0 or #new > 0 or is_all == 0
    taken = taken + #new
    found[number] = {waiting, new, is_all}
  end
  room = math.max(0, room - taken)
  return found, any
end

if redis.call('ZADD', workers, now, consumer) == 1 then
  redis.call('XADD', bell, 'MAXLEN', 10, '*', 'joined', consumer)
end
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - tonumber(ARGV[8]))
redis.call('PEXPIRE', workers, 86400000)
local share = math.ceil(partitions / redis.call('ZCARD', workers))

local lost, free, found, mine, busy = {}, {}, {}, {}, 0
for i = 9, #ARGV, 3 do
  local p, held, what = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  mine[p] = true
  if holder(p) ~= held then
    lost[#lost + 1] = p
  else
    busy = busy + 1
    if what == 'sync' then held = token end
    set_lease(p, held)
    if what == 'sync' or (what == 'read' and room > 0) then
      local entries, any = read(p, what == 'sync')
      if any or what == 'sync' then found[#found + 1] = {p, held, entries} end
    end
  end
end

local next_end, empty = -1, {}
for i = 0, partitions - 1 do
  local p = (first + i) % partitions
  if not mine[p] then
    local who, ends = holder(p)
    -- What this worker itself leased with a reply that it never got is free to it.
    local own = who and string.match(who, '^(.*)#%d+$') == consumer
    if who and ends > now and not own then
      if next_end < 0 or ends - now < next_end then next_end = ends - now end
    elseif busy < share then
      set_lease(p, token)
      local entries, any = read(p, true)
      if any then
        found[#found + 1] = {p, token, entries}
        busy = busy + 1
      else
        empty[#empty + 1] = p
      end
    else
      free[#free + 1] = p
    end
  end
end

-- Empty ones are kept as well, up to the share, so that not all workers wake up for each message.
for _, p in ipairs(empty) do
  if busy < share then
    found[#found + 1] = {p, token, {}}
    busy = busy + 1
  else
    for topic = 1, topics do redis.call('HDEL', leases(topic), p) end
    free[#free + 1] = p
  end
end
return {string.format('%.0f', now), share, next_end, lost, free, found}
