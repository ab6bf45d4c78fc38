-- Deliver what may be, and lease its keys; read more from the streams where too little is free.
-- ARGV goes on: a token for the leases, how many entries, then tokens whose reply was lost: what they stand for is released.
-- Gives milliseconds until something changes by itself (-1: nothing does), whether there is more to read, and how many positions
-- follow. These are given where there is nothing to deliver: what comes after them, in the bell and in each stream, is new.
-- Then for each entry: the number of its stream, id, failures, deliveries, key, and the number of its fields before the fields
-- themselves (-1: the entry was deleted).

local token, limit = ARGV[4], tonumber(ARGV[5])
local PAGES, LEAST = 3, 20 -- so often, and so many entries, are read at a time
local given, room, number_of, is_marked = {0, 0, 0}, limit, {}, false
for i = 11, #KEYS do number_of[KEYS[i]] = i - 10 end

-- The key of an entry: in its field k, or within the event, where another program wrote it. What has none is alone.
local function key_of(ref, fields)
  local key, event = field(fields, 'k'), field(fields, 'e')
  if not key and event and string.find(event, '"partitionkey"', 1, true) then
    local is_json, found = pcall(cjson.decode, event)
    key = is_json and type(found) == 'table' and type(found.partitionkey) == 'string' and found.partitionkey
  end
  return key and 'k' .. key or 'r' .. ref
end

local function set_free(key)
  turn = turn + 1
  redis.call('ZADD', free, 'NX', number(turn), key)
end

-- Put pending entries in their queues, which is needed only where a script ended half-way, or the queues were deleted.
local function recover(stream)
  local last = redis.call('HGET', meta, stream)
  local pending = redis.call('XPENDING', stream, group, last and '(' .. last or '-', '+', 1000)
  for _, entry in ipairs(pending) do
    local ref = stream .. '/' .. entry[1]
    local key = key_of(ref, fields_of(stream, entry[1]) or {})
    if not redis.call('LPOS', queue(key), ref, 'RANK', -1, 'MAXLEN', 1000) then redis.call('RPUSH', queue(key), ref) end
    if not redis.call('ZSCORE', held, key) and not redis.call('ZSCORE', later, key) then set_free(key) end
    redis.call('HSET', meta, stream, entry[1])
  end
  if not last and #pending == 0 then
    for _, about_group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      if field(about_group, 'name') == group then
        redis.call('HSET', meta, stream, field(about_group, 'last-delivered-id'))
      end
    end
  end
  return #pending < 1000
end

local function is_recovered()
  if is_clean == '1' then return true end
  local all = true
  for i = 11, #KEYS do all = recover(KEYS[i]) and all end
  if all then redis.call('HSET', meta, 'clean', 1) end
  return all
end

-- Read a page of each stream into the queues; gives whether there may be more. Until the script ends, the queues are marked as
-- not clean: where it fails, the next one looks which of these entries are in them.
local function read()
  local page = math.ceil(math.max(room, LEAST) / (#KEYS - 10))
  local command, more = {'XREADGROUP', 'GROUP', group, READER, 'COUNT', page, 'STREAMS'}, false
  for i = 11, #KEYS do command[#command + 1] = KEYS[i] end
  for _ = 11, #KEYS do command[#command + 1] = '>' end
  for _, found in ipairs(redis.call(unpack(command)) or {}) do
    if not is_marked then redis.call('HSET', meta, 'clean', 0) end
    is_marked = true
    local stream, entries = found[1], found[2]
    for _, entry in ipairs(entries) do
      local ref = stream .. '/' .. entry[1]
      local key = key_of(ref, entry[2] or {})
      if redis.call('RPUSH', queue(key), ref) == 1 then set_free(key) end
    end
    about[#about + 1], about[#about + 2] = stream, entries[#entries][1]
    more = more or #entries == page
  end
  return more
end

-- Append an entry to what is given, if it may be delivered now.
local function give(ref, key)
  local stream, id = parts(ref)
  local failures, deliveries, due = counts_of(ref)
  if not number_of[stream] or due > now then return false end
  local fields, size = fields_of(stream, id), #given
  given[size + 1], given[size + 2], given[size + 3] = number_of[stream], id, failures
  given[size + 4], given[size + 5], given[size + 6] = deliveries, key, fields and #fields or -1
  for i = 1, fields and #fields or 0 do given[size + 6 + i] = fields[i] end
  return true
end

-- Deliver the first entries of free keys, of each its share.
local function deliver()
  local keys = redis.call('ZRANGE', free, 0, room - 1)
  local leases, new_holds, taken = {}, {}, {}
  for at, key in ipairs(keys) do
    local most, many = math.max(1, math.floor(room / (#keys - at + 1))), 0
    for _, ref in ipairs(redis.call('LRANGE', queue(key), 0, most - 1)) do
      if not give(ref, key) then break end
      many = many + 1
      taken[#taken + 1], taken[#taken + 2] = ref, token
    end
    if many == 0 then
      -- a worker that has more topics may take it; the others look again
      redis.call('ZADD', later, number(now + 1000), key)
    else
      leases[#leases + 1], leases[#leases + 2] = number(now + lease), key
      new_holds[#new_holds + 1], new_holds[#new_holds + 2] = key, token .. ' ' .. many .. ' ' .. many
      room = room - many
    end
  end
  call_with({'ZADD', held}, leases)
  call_with({'HSET', holds}, new_holds)
  call_with({'HSET', out}, taken)
  call_with({'ZREM', free}, keys)
end

local unanswered, all = {}, #ARGV > 5 and redis.call('HGETALL', holds) or {}
for at = 1, #all, 2 do
  for i = 6, #ARGV do
    if string.match(all[at + 1], '^(.*) %d+ %d+$') == ARGV[i] then unanswered[#unanswered + 1] = all[at] end
  end
end
take_back(unanswered, false)
take_back(redis.call('ZRANGEBYSCORE', held, '-inf', number(now), 'LIMIT', 0, 1000), true)
local due = redis.call('ZRANGEBYSCORE', later, '-inf', number(now), 'LIMIT', 0, 1000)
let_go(due)
call_with({'ZREM', later}, due)

deliver()
local more = room > 0 and not is_recovered()
if room > 0 then deliver() end
for _ = 1, more and 0 or PAGES do
  if room <= 0 then break end
  more = read()
  deliver()
  if not more then break end
end
if is_marked then about[#about + 1], about[#about + 2] = 'clean', 1 end

local wait = -1
for _, set in ipairs({later, held}) do
  local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
  if first and (wait < 0 or first - now < wait) then wait = math.max(1, first - now) end
end
rings = room < limit and redis.call('EXISTS', free) == 1
finish()
if room == limit then
  local last = redis.call('XREVRANGE', bell, '+', '-', 'COUNT', 1)
  given[4] = last[1] and last[1][1] or '0-0'
  for i = 11, #KEYS do given[#given + 1] = redis.call('HGET', meta, KEYS[i]) or '0-0' end
end
given[1], given[2], given[3] = math.floor(wait), more and 1 or 0, room == limit and #KEYS - 9 or 0
return given
