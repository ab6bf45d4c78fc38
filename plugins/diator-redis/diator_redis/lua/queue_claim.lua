-- Lease free keys and deliver their first entries; if too few are free, read more from the streams.
-- ARGV goes on: a token for the new leases, how many entries to deliver, then tokens whose reply was lost: their leases end.
-- Returns milliseconds until a retry is due or a lease expires (-1: neither), whether there is more to read, and how many positions
-- follow. Positions come only if nothing is delivered: entries behind them, in the wakeup stream and in each stream, are new.
-- Then for each entry: the number of its stream, id, failures, deliveries, key, and the number of its fields before the fields
-- themselves (-1: the entry was deleted).

local token, limit = ARGV[4], tonumber(ARGV[5])
local PAGES, LEAST = 3, 20 -- how often to read in one call, and at least how many entries each time
local OWN = KEYS[#KEYS]
local more, room, number_of, fresh, positions, is_marked = false, limit, {}, {}, {}, false
for i = 11, #KEYS do number_of[KEYS[i]] = i - 10 end

-- Queues.

-- The key of an entry: its field k or, if another program wrote it, in the event. An entry without a key has a queue of its own.
local function key_of(ref, fields)
  local key, event = field(fields, 'k'), field(fields, 'e')
  if not key and event and string.find(event, '"partitionkey"', 1, true) then
    local is_json, found = pcall(cjson.decode, event)
    key = is_json and type(found) == 'table' and type(found.partitionkey) == 'string' and found.partitionkey
  end
  return key and 'k' .. key or 'r' .. ref
end

-- Put entries into the queues of their keys. Returns the keys whose queues were empty, in order, and the entries by key.
local function put(refs, keys)
  local by_key, order, new = {}, {}, {}
  for at, ref in ipairs(refs) do
    local some = by_key[keys[at]]
    if not some then
      some = {}
      by_key[keys[at]] = some
      order[#order + 1] = keys[at]
    end
    some[#some + 1] = ref
  end
  for _, key in ipairs(order) do
    if redis.call('RPUSH', queue(key), unpack(by_key[key])) == #by_key[key] then new[#new + 1] = key end
  end
  return new, by_key
end

local function set_free(keys, from)
  local freed = {}
  for at = from or 1, #keys do
    turn = turn + 1
    freed[#freed + 1], freed[#freed + 2] = number(turn), keys[at]
  end
  call_with({'ZADD', free, 'NX'}, freed)
end

-- Put pending entries into their queues. Needed only if a script ended halfway or the queues were deleted.
local function recover(stream)
  local last = redis.call('HGET', meta, stream)
  local pending = redis.call('XPENDING', stream, group, last and '(' .. last or '-', '+', 1000)
  for _, entry in ipairs(pending) do
    local ref = stream .. '/' .. entry[1]
    local key = key_of(ref, fields_of(stream, entry[1]) or {})
    if not redis.call('LPOS', queue(key), ref, 'RANK', -1, 'MAXLEN', 1000) then redis.call('RPUSH', queue(key), ref) end
    if not redis.call('ZSCORE', leases, key) and not redis.call('ZSCORE', delayed, key) then set_free({key}) end
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
  if all then
    redis.call('HSET', meta, 'clean', 1)
    is_clean = '1'
  end
  return all
end

-- Delivering.

local reply, leased, new_leases, new_holders, new_in_flight = {0, 0, 0}, {}, {}, {}, {}
local expires = number(now + lease)

-- Append an entry to the reply if it can be delivered now.
local function add_to_reply(ref, key)
  local entry, failures, deliveries, due = fresh[ref], 0, 0, 0
  local stream, id, fields
  if entry then
    stream, id, fields = entry[3], entry[1], entry[2]
  else
    stream, id = parts(ref)
    failures, deliveries, due = counts_of(ref)
  end
  if not number_of[stream] or due > now then return false end
  fields = fields or fields_of(stream, id)
  local size = #reply
  reply[size + 1], reply[size + 2], reply[size + 3] = number_of[stream], id, failures
  reply[size + 4], reply[size + 5], reply[size + 6] = deliveries, key, fields and #fields or -1
  for i = 1, fields and #fields or 0 do reply[size + 6 + i] = fields[i] end
  new_in_flight[#new_in_flight + 1], new_in_flight[#new_in_flight + 2] = ref, token
  return true
end

-- Lease a key and deliver its first entries, at most `max`. Returns whether there was one.
local function deliver(key, refs, max)
  local many = 0
  while many < #refs and many < max and add_to_reply(refs[many + 1], key) do many = many + 1 end
  if many == 0 then return false end
  new_leases[#new_leases + 1], new_leases[#new_leases + 2] = expires, key
  new_holders[#new_holders + 1], new_holders[#new_holders + 2] = key, token .. ' ' .. many .. ' ' .. many
  room = room - many
  return true
end

-- How many entries of a key to deliver at most if this many keys wait.
local function share(keys) return math.max(1, math.floor(room / keys)) end

local function note_leases()
  call_with({'ZADD', leases}, new_leases)
  call_with({'HSET', holders}, new_holders)
  call_with({'HSET', in_flight}, new_in_flight)
  call_with({'ZREM', free}, leased)
  leased, new_leases, new_holders, new_in_flight = {}, {}, {}, {}
end

local function deliver_what_is_free()
  local keys = redis.call('ZRANGE', free, 0, room - 1)
  for at, key in ipairs(keys) do
    local max = share(#keys - at + 1)
    if not deliver(key, redis.call('LRANGE', queue(key), 0, max - 1), max) then
      -- a worker with more topics may deliver it; the others look again later
      redis.call('ZADD', delayed, number(now + 1000), key)
    end
    leased[#leased + 1] = key
  end
  note_leases()
end

-- Deliver entries that were just read and whose queues were empty. Keys that do not fit wait for their turn.
local function deliver_new(keys, by_key)
  local at = 1
  while at <= #keys and room > 0 do
    deliver(keys[at], by_key[keys[at]], share(#keys - at + 1))
    at = at + 1
  end
  set_free(keys, at)
end

-- Reading.

local refs, keys = {}, {} -- entries that were read and are not in their queues yet

-- Read a page of each stream; gives how many entries there were, and the streams that may have more. Until the script ends, the
-- queues are marked as not clean: where it fails, the next one looks which of these entries are in them.
local function read(names, page)
  local command, number_read, full = {'XREADGROUP', 'GROUP', group, READER, 'COUNT', page, 'STREAMS'}, 0, {}
  for _, name in ipairs(names) do command[#command + 1] = name end
  for _ in ipairs(names) do command[#command + 1] = '>' end
  local reply = redis.call(unpack(command)) or {}
  if #reply > 0 and not is_marked then
    redis.call('HSET', meta, 'clean', 0)
    is_marked = true
  end
  for _, found in ipairs(reply) do
    local stream, entries = found[1], found[2]
    for _, entry in ipairs(entries) do
      local ref = stream .. '/' .. entry[1]
      entry[2], entry[3] = entry[2] or {}, stream
      number_read = number_read + 1
      refs[#refs + 1], keys[#refs + 1], fresh[ref] = ref, key_of(ref, entry[2]), entry
    end
    positions[stream] = entries[#entries][1]
    if #entries == page then full[#full + 1] = stream end
  end
  return number_read, full
end

-- Read the subscription's own stream, but only entries older than what may still be unread in the streams of topics: these go first.
local function read_replayed(names, page)
  if redis.call('XLEN', OWN) == 0 then return false end
  local before
  for _, name in ipairs(names) do
    local time = tonumber(string.match(positions[name], '^%d+'))
    before = math.min(before or time, time)
  end
  local last = positions[OWN] or redis.call('HGET', meta, OWN)
  local found = redis.call('XRANGE', OWN, last and '(' .. last or '-', before and number(before - 1) or '+', 'COUNT', page)
  if #found > 0 then read({OWN}, #found) end
  return #found == page
end

-- Read about `wanted` entries. Some may belong to keys that are leased or delayed, so the caller may have to read again.
local function read_about(wanted)
  local names, page, max = {}, math.ceil(wanted / math.max(1, #KEYS - 11)), wanted
  for i = 11, #KEYS - 1 do names[#names + 1] = KEYS[i] end
  while wanted > 0 and #names > 0 do
    local full = {}
    for from = 1, #names, 1000 do
      local number_read, some = read({unpack(names, from, math.min(from + 999, #names))}, page)
      wanted = wanted - number_read
      for _, name in ipairs(some) do full[#full + 1] = name end
    end
    names = full
    page = math.ceil(math.max(wanted, 1) / math.max(#names, 1))
  end
  more = read_replayed(names, max) or #names > 0
  deliver_new(put(refs, keys))
  refs, keys = {}, {}
end

local function all_under(tokens)
  local found, all = {}, #tokens > 0 and redis.call('HGETALL', holders) or {}
  for at = 1, #all, 2 do
    for _, one in ipairs(tokens) do
      if string.match(all[at + 1], '^(.*) %d+ %d+$') == one then found[#found + 1] = all[at] end
    end
  end
  return found
end

end_leases(all_under({unpack(ARGV, 6)}), false)
end_leases(redis.call('ZRANGEBYSCORE', leases, '-inf', number(now), 'LIMIT', 0, 1000), true)
local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', number(now), 'LIMIT', 0, 1000)
release_keys(due)
call_with({'ZREM', delayed}, due)

deliver_what_is_free()
if room > 0 then
  more = not is_recovered()
  deliver_what_is_free()
  for _ = 1, more and 0 or PAGES do
    if room <= 0 then break end
    read_about(math.max(room, LEAST))
    if not more then break end
  end
  note_leases()
end
if is_marked then
  about = {'clean', 1}
  for stream, position in pairs(positions) do
    about[#about + 1], about[#about + 2] = stream, position
  end
end

local wait = -1
for _, set in ipairs({delayed, leases}) do
  local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
  if first and (wait < 0 or first - now < wait) then wait = math.max(1, first - now) end
end
wakes = room < limit and redis.call('EXISTS', free) == 1
finish()
if room == limit then
  local last = redis.call('XREVRANGE', wakeup, '+', '-', 'COUNT', 1)
  reply[4] = last[1] and last[1][1] or '0-0'
  for i = 11, #KEYS do reply[#reply + 1] = redis.call('HGET', meta, KEYS[i]) or '0-0' end
end
reply[1], reply[2], reply[3] = math.floor(wait), more and 1 or 0, room == limit and #KEYS - 9 or 0
return reply
