-- What the scripts of a subscription without order share. Its workers read its streams themselves, each as a consumer of the group.
-- KEYS: redelivery (the subscription's own stream), due and scheduled (delayed retries), dead letters, meta, then the streams, of
-- which the last is redelivery.  ARGV: group, consumer, the topic of each stream but the last, then the arguments of the script.
-- An entry to be redelivered is appended to the own stream with its counts, under a new id: the former worker can no longer settle it.

local redelivery, due, scheduled, dead_letters, meta = unpack(KEYS, 1, 5)
local group, consumer = ARGV[1], ARGV[2]
local OWN = #KEYS - 5
local FIRST = OWN + 2

allow_growth(due)

-- The fields of an entry with its topic, and its counts increased by these numbers.
local function counted(at, id, failures, deliveries)
  local fields, is_own = fields_of(KEYS[at + 5], id) or DELETED, at == OWN
  local function count(name)
    local number = is_own and tonumber(field(fields, name) or 0)
    return number and number >= 0 and number < 1e9 and math.floor(number) or 0
  end
  local topic = is_own and field(fields, 't') or ARGV[2 + math.max(1, math.min(at, OWN - 1))]
  return {'t', topic, unpack(with_counts(fields, count('f') + failures, count('d') + deliveries))}
end

local function remove(at, id)
  redis.call('XACK', KEYS[at + 5], group, id)
  if at == OWN then redis.call('XDEL', KEYS[at + 5], id) end
end
