-- What a subscription knows beside its streams: a queue for each key, of entries that were read and are not settled.
-- KEYS: the nine below, then the streams, of which the last is the subscription's own: dead letters that were replayed.
-- ARGV: group, receiver, milliseconds of a lease, then what the script takes.
-- An entry is known by "<stream>/<id>", and stays in its stream, pending, until it is settled. A queue is named "k<key>" and is a list,
-- or "r<entry>" and is that entry alone. It is in one of three sorted sets: free (it may be delivered), delayed (its first entry waits
-- for a retry), leased (a receiver owns its first entries).

local lists, free, delayed, leased, owners, entries, meta, wakeup, dead = unpack(KEYS, 1, 9)
local group, receiver, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local TOPICS = 10 -- where the streams begin
local OWN = #KEYS

allow_growth(free)

-- A clock that never goes back, as the server's may: leases would last as long as the jump.
local wall = milliseconds()
local known, shift, turn, is_clean = unpack(redis.call('HMGET', meta, 'wall', 'shift', 'turn', 'clean'))
shift, turn = tonumber(shift or 0), tonumber(turn or 0)
if tonumber(known or 0) > wall then shift = shift + known - wall end
local now = wall + shift
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

local function finish()
  redis.call('HSET', meta, 'wall', number(wall), 'shift', number(shift), 'turn', number(turn), unpack(about))
  if rings then
    redis.call('XADD', wakeup, 'MAXLEN', 10, '*', 'free', '')
    redis.call('PEXPIRE', wakeup, 86400000)
  end
end

local function is_list(name) return string.sub(name, 1, 1) == 'k' end

local function list(name) return lists .. ':' .. name end

-- The first entries of a queue, at most ``many``.
local function first(name, many)
  if is_list(name) then return redis.call('LRANGE', list(name), 0, many - 1) end
  return {string.sub(name, 2)}
end

-- The token under which an entry was delivered (-: it is not in flight), failures, deliveries, and when it may be delivered.
local function state_of(value)
  local token, failures, deliveries, due = string.match(value or '- 0 0 0', '^(.*) (%d+) (%d+) (%d+)$')
  return token, tonumber(failures), tonumber(deliveries), tonumber(due)
end

local function state(token, failures, deliveries, due)
  return token .. ' ' .. failures .. ' ' .. deliveries .. ' ' .. number(due)
end

local function set_free(names, from)
  local freed = {}
  for at = from or 1, #names do
    turn = turn + 1
    freed[#freed + 1], freed[#freed + 2] = number(turn), names[at]
  end
  call_with({'ZADD', free, 'NX'}, freed)
end

-- End the leases of queues, and put them where their first entries belong, but for those with nothing left.
local function return_queues(names, empty)
  local freed, waiting = {}, {}
  for _, name in ipairs(names) do
    local head = not (empty and empty[name]) and first(name, 1)[1]
    if head then
      local _, _, _, due = state_of(redis.call('HGET', entries, head))
      if due > now then
        waiting[#waiting + 1], waiting[#waiting + 2] = number(due), name
      else
        freed[#freed + 1] = name
      end
      rings = true
    end
  end
  set_free(freed)
  call_with({'ZADD', delayed}, waiting)
  call_with({'ZREM', leased}, names)
  call_with({'HDEL', owners}, names)
end
