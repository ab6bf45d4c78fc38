-- Deliver what may be, and lease its queues; read more from the streams if too little is free.
-- ARGV goes on: the serial number of this call, whether entries are ordered by key, how many (0: release all that the receiver owns),
-- and the last call whose reply arrived: what was claimed after it is released.
-- Returns milliseconds until something changes by itself (-1: nothing does), whether there is more to read, how many positions follow,
-- and these, if there is nothing to deliver: what comes after them, in wakeup and in each stream, is new. Then for each entry the number
-- of its stream, id, failures, deliveries, queue, how many fields and values follow (none: it was deleted), and these. It is flat, since
-- Redis 6 sends each nested array as a packet of its own.

local serial, is_ordered, limit, answered = ARGV[4], ARGV[5] == '1', tonumber(ARGV[6]), tonumber(ARGV[7])
local READER = 'queues' -- the one consumer of all receivers: the queues have what is pending
local PAGES, MIN_PAGE = 3, is_ordered and 20 or 1 -- entries of keys that are leased or wait are read too
local MAX_CLAIM = 500
local token, expires = receiver .. '#' .. serial, number(now + lease)
local room, number_of, fresh, positions = limit, {}, {}, {}
for at = TOPICS, #KEYS do number_of[KEYS[at]] = at - TOPICS + 1 end

-- What others owned past their leases, what waited for a retry, and what was in a lost reply.

return_queues(redis.call('ZRANGEBYSCORE', leased, '-inf', number(now), 'LIMIT', 0, 1000))
local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', number(now), 'LIMIT', 0, 1000)
return_queues(due)
call_with({'ZREM', delayed}, due)

local function release_claims()
  local all, mine = redis.call('HGETALL', owners), {}
  for at = 1, #all, 2 do
    local held, nth = string.match(all[at + 1], '^(.*#(%d+)) %d+$')
    if held == receiver .. '#' .. nth and tonumber(nth) > answered then
      for _, ref in ipairs(first(all[at], MAX_CLAIM)) do
        local holder, failures, deliveries = state_of(redis.call('HGET', entries, ref))
        if holder == held then redis.call('HSET', entries, ref, state('-', failures, deliveries - 1, 0)) end
      end
      mine[#mine + 1] = all[at]
    end
  end
  return_queues(mine)
end
if limit == 0 or answered < serial - 1 then release_claims() end

-- Queues.

-- The queue of an entry: of its key, in its field k, or within the event, where another program wrote it.
local function queue_of(ref, fields)
  local key, event = is_ordered and field(fields, 'k'), is_ordered and field(fields, 'e')
  if not key and event and string.find(event, '"partitionkey"', 1, true) then
    local is_json, found = pcall(cjson.decode, event)
    key = is_json and type(found) == 'table' and type(found.partitionkey) == 'string' and found.partitionkey
  end
  return key and 'k' .. key or 'r' .. ref
end

-- Put pending entries in their queues, which is needed only if a script ended half-way, or the queues were deleted.
local function recover(stream)
  local last = redis.call('HGET', meta, stream)
  local pending = redis.call('XPENDING', stream, group, last and '(' .. last or '-', '+', 1000)
  for _, entry in ipairs(pending) do
    local ref = stream .. '/' .. entry[1]
    local name = queue_of(ref, fields_of(stream, entry[1]) or {})
    if is_list(name) and not redis.call('LPOS', list(name), ref, 'RANK', -1, 'MAXLEN', 1000) then
      redis.call('RPUSH', list(name), ref)
    end
    if not redis.call('ZSCORE', leased, name) and not redis.call('ZSCORE', delayed, name) then set_free({name}) end
    redis.call('HSET', meta, stream, entry[1])
  end
  if not last and #pending == 0 then
    redis.call('HSET', meta, stream, field(group_of(stream, group), 'last-delivered-id'))
  end
  return #pending < 1000
end

local function is_recovered()
  if is_clean == '1' then return true end
  local all = true
  for at = TOPICS, #KEYS do all = recover(KEYS[at]) and all end
  if all then redis.call('HSET', meta, 'clean', 1) end
  return all
end

-- Delivering.

local reply, leases, owned, states = {0, 0, 0}, {}, {}, {}

-- Append an entry to the reply, if it may be delivered now.
local function append(ref, name)
  local entry, failures, count, when, _ = fresh[ref], 0, 0, 0, nil
  if not entry then
    local stream, id = string.match(ref, '^(.*)/(%d+%-%d+)$')
    _, failures, count, when = state_of(redis.call('HGET', entries, ref))
    entry = {id, number_of[stream] and fields_of(stream, id) or false, stream}
  end
  if not number_of[entry[3]] or when > now then return false end
  local size, fields = #reply, entry[2] or {}
  reply[size + 1], reply[size + 2], reply[size + 3] = number_of[entry[3]], entry[1], failures
  reply[size + 4], reply[size + 5], reply[size + 6] = count + 1, name, #fields
  for at = 1, #fields do reply[size + 6 + at] = fields[at] end
  states[#states + 1], states[#states + 2] = ref, state(token, failures, count + 1, 0)
  return true
end

-- Lease queues without an owner while there is room, each for its share; returns how many were looked at.
local function deliver(names)
  for at, name in ipairs(names) do
    if room <= 0 then return at - 1 end
    local many = 0
    for _, ref in ipairs(first(name, math.max(1, math.floor(room / (#names - at + 1))))) do
      if not append(ref, name) then break end
      many = many + 1
    end
    if many > 0 then
      leases[#leases + 1], leases[#leases + 2] = expires, name
      owned[#owned + 1], owned[#owned + 2] = name, token .. ' ' .. many
    else -- a worker that has more topics may take it; the others look again
      redis.call('ZADD', delayed, number(now + 1000), name)
    end
    room = room - many
  end
  return #names
end

local function deliver_free()
  local names = redis.call('ZRANGE', free, 0, room - 1)
  deliver(names)
  call_with({'ZREM', free}, names)
end

-- Reading.

local wanted, new, is_new = 0, {}, {} -- queues of which nothing was there before

-- Read a page of each stream; returns the streams that may have more. Until the script ends, the queues are marked as not clean: if it
-- fails, the next one looks which of these entries are in them.
local function read(streams, page)
  local command, full = {'XREADGROUP', 'GROUP', group, READER, 'COUNT', page, 'STREAMS'}, {}
  for _, stream in ipairs(streams) do command[#command + 1] = stream end
  for _ in ipairs(streams) do command[#command + 1] = '>' end
  local reply = redis.call(unpack(command)) or {}
  if #reply > 0 and not next(positions) then redis.call('HSET', meta, 'clean', 0) end
  for _, found in ipairs(reply) do
    local stream, some = found[1], found[2]
    for _, entry in ipairs(some) do
      local ref = stream .. '/' .. entry[1]
      local name = queue_of(ref, entry[2])
      fresh[ref], entry[3] = entry, stream
      if not is_list(name) or redis.call('RPUSH', list(name), ref) == 1 then new[#new + 1], is_new[name] = name, true end
      if is_new[name] then wanted = wanted - 1 end
    end
    positions[stream] = some[#some][1]
    if #some == page then full[#full + 1] = stream end
  end
  return full
end

-- Read replayed entries; they are last: only those behind which nothing waits in the streams that may have more.
local function read_replayed(full)
  if redis.call('XLEN', KEYS[OWN]) == 0 then return false end
  local before
  for _, stream in ipairs(full) do
    local time = tonumber(string.match(positions[stream], '^%d+'))
    before = math.min(before or time, time)
  end
  local last = redis.call('HGET', meta, KEYS[OWN])
  local found = redis.call('XRANGE', KEYS[OWN], last and '(' .. last or '-', before and number(before - 1) or '+', 'COUNT', limit)
  if #found > 0 then read({KEYS[OWN]}, #found) end
  return #found == limit
end

local more = room > 0 and not is_recovered()
if room > 0 then deliver_free() end
if room > 0 and not more then
  local full = {unpack(KEYS, TOPICS, OWN - 1)}
  wanted = room
  for _ = 1, PAGES do
    if wanted > 0 and #full > 0 then full = read(full, math.max(MIN_PAGE, math.ceil(wanted / #full))) end
  end
  more = read_replayed(full) or #full > 0
  set_free(new, deliver(new) + 1)
end
call_with({'ZADD', leased}, leases)
call_with({'HSET', owners}, owned)
call_with({'HSET', entries}, states)
if next(positions) then about = {'clean', 1} end
for stream, position in pairs(positions) do about[#about + 1], about[#about + 2] = stream, position end

local wait = -1
for _, set in ipairs({delayed, leased}) do
  local soonest = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
  if soonest and (wait < 0 or soonest - now < wait) then wait = math.max(1, soonest - now) end
end
rings = rings and limit == 0 or room < limit and redis.call('EXISTS', free) == 1
finish()
if room == limit then
  local last = redis.call('XREVRANGE', wakeup, '+', '-', 'COUNT', 1)
  reply[3], reply[4] = #KEYS - TOPICS + 2, last[1] and last[1][1] or '0-0'
  for at = TOPICS, #KEYS do reply[#reply + 1] = redis.call('HGET', meta, KEYS[at]) or '0-0' end
end
reply[1], reply[2] = math.floor(wait), more and 1 or 0
return reply
