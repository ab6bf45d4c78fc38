-- What the workers of a subscription without order share: they read its streams themselves, each as a consumer of the group.
-- KEYS: again (the subscription's own stream), due and scheduled (retries that wait), dead, meta, then the streams, of which the last
-- is again.  ARGV: group, consumer, the topic of each stream but the last, then what the script takes.
-- What comes again is appended to the own stream with its counts, under a new id: who had it can change nothing any more.

local again, due, scheduled, dead, meta = unpack(KEYS, 1, 5)
local group, consumer = ARGV[1], ARGV[2]
local OWN = #KEYS - 5
local FIRST = OWN + 2

allow_growth(due)

-- The fields of an entry with its topic, and counts that are higher by so many.
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
