-- Read what there is in partitions: those that this worker has, and others that are free, which it leases with that.
-- KEYS: workers, bell, then four for each topic: leases, events, again, state; the last three are names that get ":<partition>".
-- ARGV: group, consumer, token for new leases, milliseconds of a lease, partitions, how many entries, the partition to begin
-- with, milliseconds after which a worker is forgotten, then three for each partition that it has: number, token, what to do
-- ("read", "more": read, and say so where nothing more is there, "keep": renew the lease only, "sync": read, and give all that is
-- pending as well, under the new token).
-- Gives, in one array, where each list begins with its length (see `flat`):
-- for each partition that has something: number, token, and the list of its streams, each with 1 where there is no more of it,
-- the list of what waits in place (id, deliveries, failures, milliseconds until it is due, the list of the fields, -1 long where
-- the entry was deleted), and the list of what is new (id, the list of the fields); then -1, now, how many partitions are this
-- worker's share, milliseconds until the next lease of another ends (-1: none), the list of the partitions that it has lost, and
-- the list of those that are free.

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

local given, length = {}, 0

local function give(value)
  length = length + 1
  given[length] = value
end

local function give_all(values)
  give(#values)
  for i = 1, #values do
    length = length + 1
    given[length] = values[i]
  end
end

local function give_in_place(p, number, name, entries)
  give(#entries)
  for _, entry in ipairs(entries) do
    local state = redis.call('HGET', state_of(p, number), entry[1]) or ''
    local failures, due = string.match(state, '^(%d+) (%d+)$')
    give(entry[1])
    give(entry[4])
    give(tonumber(failures or 0))
    give(math.max(0, tonumber(due or 0) - now))
    local fields = fields_of(name, entry[1])
    if fields then give_all(fields) else give(-1) end
  end
end

local function give_new(entries)
  give(#entries)
  for i = 1, #entries do
    give(entries[i][1])
    give_all(entries[i][2])
  end
end

local room = limit

-- All that is left to read is read by later calls: only what waits in place must be known at once. Gives nothing, and takes
-- nothing, where there is nothing, unless it is to be given whatever there is.
local function read(p, held, taking, whatever)
  local before, any, taken = length, whatever, 0
  give(p)
  give(held)
  give(topics * 2)
  for number, name in ipairs(stream_names(p)) do
    local waiting = taking and redis.call('XPENDING', name, group, '-', '+', 100000) or {}
    local new, is_all = {}, 0
    if room > 0 then
      local reply = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', room, 'STREAMS', name, '>')
      new = reply and reply[1][2] or new
      is_all = #new < room and 1 or 0
    end
    any = any or #waiting > 0 or #new > 0 or is_all == 0
    taken = taken + #new
    give(is_all)
    give_in_place(p, number, name, waiting)
    give_new(new)
  end
  room = math.max(0, room - taken)
  if not any then length = before end
  return any
end

if redis.call('ZADD', workers, now, consumer) == 1 then
  redis.call('XADD', bell, 'MAXLEN', 10, '*', 'joined', consumer)
end
redis.call('ZREMRANGEBYSCORE', workers, '-inf', now - tonumber(ARGV[8]))
redis.call('PEXPIRE', workers, 86400000)
local share = math.ceil(partitions / redis.call('ZCARD', workers))

local lost, free, mine, busy = {}, {}, {}, 0
for i = 9, #ARGV, 3 do
  local p, held, what = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  mine[p] = true
  if holder(p) ~= held then
    lost[#lost + 1] = p
  else
    busy = busy + 1
    if what == 'sync' then held = token end
    set_lease(p, held)
    local whatever = what == 'sync' or what == 'more'
    if whatever or (what == 'read' and room > 0) then read(p, held, what == 'sync', whatever) end
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
      if read(p, token, true, false) then
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
    give(p)
    give(token)
    give(0)
    busy = busy + 1
  else
    for topic = 1, topics do redis.call('HDEL', leases(topic), p) end
    free[#free + 1] = p
  end
end

give(-1)
give(string.format('%.0f', now))
give(share)
give(next_end)
give_all(lost)
give_all(free)
given[length + 1] = nil -- what was taken back ends here
return given
