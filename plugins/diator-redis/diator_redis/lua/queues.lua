-- What an ordered subscription knows beside its streams: a queue for each key, of entries that were read and are not settled.
-- KEYS: the ten below, then the streams.  ARGV: group, consumer, milliseconds of a lease, then what the script takes.
-- An entry is known by "<stream>/<id>", and stays in its stream, pending, until it is settled. A key is in one of three sorted
-- sets: free (it may be handed out), later (its first entry waits for a retry), held (a worker has the first entries).

local queues, free, later, held, holds, out, counts, meta, bell, dead = unpack(KEYS, 1, 10)
local group, consumer, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local READER = 'queues' -- the one consumer of all workers: it is the queues that have what is pending

allow_growth(free)

-- A clock that never goes back, as that of the server may: leases would last as long as the jump.
local wall = milliseconds()
local known, shift, turn, is_clean = unpack(redis.call('HMGET', meta, 'wall', 'shift', 'turn', 'clean'))
shift, turn = tonumber(shift or 0), tonumber(turn or 0)
if tonumber(known or 0) > wall then shift = shift + known - wall end
local now = wall + shift
local has_counts = redis.call('EXISTS', counts) == 1
local rings = false
local about = {} -- what is to be written to meta besides

local function number(value) return string.format('%.0f', value) end

-- Call a command with many arguments, of which there may be none. Lua can't pass on thousands at once.
local function call_with(head, values)
  for from = 1, #values, 1000 do
    local command = {unpack(head)}
    for at = from, math.min(from + 999, #values) do command[#command + 1] = values[at] end
    redis.call(unpack(command))
  end
end

-- Give the values of many fields.
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
  if rings then
    redis.call('XADD', bell, 'MAXLEN', 10, '*', 'free', '')
    redis.call('PEXPIRE', bell, 86400000)
  end
end

local function queue(key) return queues .. ':' .. key end

local function parts(ref) return string.match(ref, '^(.*)/(%d+%-%d+)$') end

-- Failures, deliveries that count, and when it may be handed out.
local function counts_of(ref)
  if not has_counts then return 0, 0, 0 end
  local failures, deliveries, due = string.match(redis.call('HGET', counts, ref) or '', '^(%d+) (%d+) (%d+)$')
  return tonumber(failures or 0), tonumber(deliveries or 0), tonumber(due or 0)
end

local function set_counts(ref, failures, deliveries, due)
  has_counts = true
  redis.call('HSET', counts, ref, failures .. ' ' .. deliveries .. ' ' .. number(due))
end

-- Put keys that no worker holds to where they belong, by the first entries of their queues, which may be known (false: none).
local function let_go(keys, heads)
  local freed, delayed = {}, {}
  for _, key in ipairs(keys) do
    local head = heads and heads[key]
    if head == nil then head = redis.call('LINDEX', queue(key), 0) end
    if head then
      local _, _, due = counts_of(head)
      local to = due > now and delayed or freed
      turn = turn + 1
      to[#to + 1], to[#to + 2] = number(due > now and due or turn), key
      rings = true
    end
  end
  call_with({'ZADD', free}, freed)
  call_with({'ZADD', later}, delayed)
  call_with({'ZREM', held}, keys)
  call_with({'HDEL', holds}, keys)
end

-- End the holds of keys: what is still out of them waits again, in its place.
local function take_back(keys, is_delivery)
  for _, key in ipairs(keys) do
    local many = string.match(redis.call('HGET', holds, key) or '', ' (%d+) %d+$')
    for _, ref in ipairs(many and redis.call('LRANGE', queue(key), 0, many - 1) or {}) do
      if redis.call('HDEL', out, ref) == 1 and is_delivery then
        local failures, deliveries, due = counts_of(ref)
        set_counts(ref, failures, deliveries + 1, due)
      end
    end
  end
  let_go(keys)
end
