-- Settle entries or renew their leases, each only under the lease with which it was delivered. Returns the numbers of the entries
-- whose lease was lost.
-- ARGV goes on with the topic of each stream but the last, which is the subscription's own; then six for each entry: key, number of
-- its stream, id, token, outcome, argument of the outcome.

local OWN = #KEYS - 10
local FIRST = 3 + OWN
local lost, keys, returned, removed, settled, finished, by_stream = {}, {}, {}, {}, {}, {}, {}

local function dead_letter(ref, at, id, reason)
  local failures, deliveries = counts_of(ref)
  local fields = fields_of(KEYS[at + 10], id) or DELETED
  local topic = tonumber(at) == OWN and field(fields, 't') or ARGV[3 + math.min(at, OWN - 1)]
  redis.call('XADD', dead_letters, '*', 'w', reason, 't', topic, unpack(with_counts(fields, failures, deliveries + 1)))
end

local function settle(key, ref, at, id, outcome, argument)
  settled[#settled + 1] = ref
  if not returned[key] then keys[#keys + 1] = key end
  returned[key] = (returned[key] or 0) + 1
  if outcome == 'retry' then
    local failures, deliveries = counts_of(ref)
    set_counts(ref, failures + 1, deliveries + 1, now + argument)
  elseif outcome ~= 'release' then
    if outcome == 'dead_letter' then dead_letter(ref, at, id, argument) end
    removed[key] = removed[key] or {}
    removed[key][#removed[key] + 1] = ref
    finished[#finished + 1] = ref
    by_stream[at] = by_stream[at] or {}
    by_stream[at][#by_stream[at] + 1] = id
  end
end

local is_done, refs = {}, {}
for i = FIRST, #ARGV, 6 do refs[#refs + 1] = KEYS[ARGV[i + 1] + 10] .. '/' .. ARGV[i + 2] end
local tokens = values_of(in_flight, refs)
for nth, ref in ipairs(refs) do
  local key, at, id, token, outcome, argument = unpack(ARGV, FIRST + (nth - 1) * 6, FIRST + nth * 6 - 1)
  if not is_done[ref] and tokens[nth] ~= token then
    lost[#lost + 1] = nth - 1
  elseif outcome == 'renew' then
    redis.call('ZADD', leases, 'XX', number(now + lease), key)
  elseif not is_done[ref] then
    is_done[ref] = true
    settle(key, ref, at, id, outcome, argument)
  end
end

-- Update the queues. Often all delivered entries of a key are settled, and its queue is empty.
local heads, empty = {}, {}
local function remove(key, done, many)
  if #done == many then
    heads[key] = redis.call('LINDEX', queue(key), many)
    if heads[key] then
      redis.call('LTRIM', queue(key), many, -1)
    else
      empty[#empty + 1] = queue(key)
    end
  else
    for _, ref in ipairs(done) do redis.call('LREM', queue(key), 1, ref) end
  end
end

local released, still_leased = {}, {}
local current = values_of(holders, keys)
for at, key in ipairs(keys) do
  local token, many, left = string.match(current[at] or '', '^(.*) (%d+) (%d+)$')
  if removed[key] then remove(key, removed[key], tonumber(many)) end
  if token and left - returned[key] > 0 then
    still_leased[#still_leased + 1], still_leased[#still_leased + 2] = key, token .. ' ' .. many .. ' ' .. number(left - returned[key])
  else
    released[#released + 1] = key
  end
end
call_with({'DEL'}, empty)
call_with({'HSET', holders}, still_leased)
call_with({'HDEL', in_flight}, settled)
if has_counts then call_with({'HDEL', counts}, finished) end
for at, ids in pairs(by_stream) do
  call_with({'XACK', KEYS[at + 10], group}, ids)
  if tonumber(at) == OWN then call_with({'XDEL', KEYS[at + 10]}, ids) end
end
release_keys(released, heads)
finish()
return lost
