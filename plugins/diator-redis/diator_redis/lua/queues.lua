-- What an ordered subscription stores beside its streams: for each key a queue of the entries that were read and are not settled.
-- KEYS: the ten below, then the streams.  ARGV: group, consumer, milliseconds of a lease, then the arguments of the script.
-- A reference "<stream>/<id>" identifies an entry, which stays pending in its stream until it is settled. A key is in one of three
-- sorted sets: free (it can be delivered), delayed (its first entry waits for a retry), leases (a worker holds its first entries).

local queues, free, delayed, leases, holders, in_flight, counts, meta, wakeup, dead_letters = unpack(KEYS, 1, 10)
local group, consumer, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local READER = 'queues' -- the one consumer of all workers: it is the queues that have what is pending

allow_growth(free)

-- A clock that never goes back. If the server's clock does, leases would last as long as the jump.
local wall = milliseconds()
local known, shift, turn, is_clean = unpack(redis.call('HMGET', meta, 'wall', 'shift', 'turn', 'clean'))
shift, turn = tonumber(shift or 0), tonumber(turn or 0)
if tonumber(known or 0) > wall then shift = shift + known - wall end
local now = wall + shift
local has_counts = redis.call('EXISTS', counts) == 1
local wakes = false
local about = {} -- further fields to write to meta

local function number(value) return string.format('%.0f', value) end

-- Call a command with any number of arguments, also none. Lua cannot pass thousands in one call.
local function call_with(head, values)
  for from = 1, #values, 1000 do
    local command = {unpack(head)}
    for at = from, math.min(from + 999, #values) do command[#command + 1] = values[at] end
    redis.call(unpack(command))
  end
end

-- Return the values of any number of fields.
local function values_of(hash, fields)
  local found = {}
  for from = 1, #fields, 1000 do
    local some = redis.call('HMGET', hash, unpack(fields, from, math.min(from + 999, #fields)))
    for at = 1, #some do found[from + at - 1] = some[at] end
  end
  return found
end

local function finish()
  redis.call('HSET', meta, 'wall', number(wall), 'shift', number(shift), 'turn', number(turn), unpack(about))
  if wakes then
    redis.call('XADD', wakeup, 'MAXLEN', 10, '*', 'free', '')
    redis.call('PEXPIRE', wakeup, 86400000)
  end
end

local function queue(key) return queues .. ':' .. key end

local function parts(ref) return string.match(ref, '^(.*)/(%d+%-%d+)$') end

-- Return the failure count, the delivery count, and the time before which the entry must not be delivered.
local function counts_of(ref)
  if not has_counts then return 0, 0, 0 end
  local failures, deliveries, due = string.match(redis.call('HGET', counts, ref) or '', '^(%d+) (%d+) (%d+)$')
  return tonumber(failures or 0), tonumber(deliveries or 0), tonumber(due or 0)
end

local function set_counts(ref, failures, deliveries, due)
  has_counts = true
  redis.call('HSET', counts, ref, failures .. ' ' .. deliveries .. ' ' .. number(due))
end

-- Move keys that no worker holds into `free` or `delayed`, depending on the first entry of each queue. A caller that knows these
-- entries passes them (false: the queue is empty).
local function release_keys(keys, heads)
  local freed, waiting = {}, {}
  for _, key in ipairs(keys) do
    local head = heads and heads[key]
    if head == nil then head = redis.call('LINDEX', queue(key), 0) end
    if head then
      local _, _, due = counts_of(head)
      local to = due > now and waiting or freed
      turn = turn + 1
      to[#to + 1], to[#to + 2] = number(due > now and due or turn), key
      wakes = true
    end
  end
  call_with({'ZADD', free}, freed)
  call_with({'ZADD', delayed}, waiting)
  call_with({'ZREM', leases}, keys)
  call_with({'HDEL', holders}, keys)
end

-- End the leases of keys: their unsettled entries wait in their queues again, in the same order.
local function end_leases(keys, counts_delivery)
  for _, key in ipairs(keys) do
    local many = string.match(redis.call('HGET', holders, key) or '', ' (%d+) %d+$')
    for _, ref in ipairs(many and redis.call('LRANGE', queue(key), 0, many - 1) or {}) do
      if redis.call('HDEL', in_flight, ref) == 1 and counts_delivery then
        local failures, deliveries, due = counts_of(ref)
        set_counts(ref, failures, deliveries + 1, due)
      end
    end
  end
  release_keys(keys)
end
