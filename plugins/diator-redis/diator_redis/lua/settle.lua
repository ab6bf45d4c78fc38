-- Settle entries, or renew their leases, each only under the token with which it was delivered. Returns the numbers, from 1, of those
-- that are not leased under it; negative: since it was settled, by this receiver or, if the lease was lost, by another.
-- ARGV goes on with seven for each entry: its queue, the number of its stream, id, token, outcome, its argument, topic.

local refs, names = {}, {}
for at = 4, #ARGV, 7 do
  refs[#refs + 1], names[#names + 1] = KEYS[ARGV[at + 1] + TOPICS - 1] .. '/' .. ARGV[at + 2], ARGV[at]
end

local function values_of(hash, fields)
  local found = {}
  for from = 1, #fields, 1000 do
    local some = redis.call('HMGET', hash, unpack(fields, from, math.min(from + 999, #fields)))
    for at = 1, #some do found[from + at - 1] = some[at] end
  end
  return found
end

local states, owned = values_of(entries, refs), values_of(owners, names)
local lost, is_done, in_flight, settled, empty = {}, {}, {}, {}, {}
local changed, finished, by_stream = {}, {}, {}

local function finish_entry(name, ref, at, id)
  finished[#finished + 1] = ref
  by_stream[at] = by_stream[at] or {}
  by_stream[at][#by_stream[at] + 1] = id
  if is_list(name) then redis.call('LREM', list(name), 1, ref) else empty[name] = true end
end

local function dead_letter(stream, id, failures, deliveries, reason, topic)
  local fields = with_counts(fields_of(stream, id) or DELETED, failures, deliveries)
  redis.call('XADD', dead, '*', 'w', reason, 't', topic, unpack(fields))
end

for nth, ref in ipairs(refs) do
  local name, at, id, token, outcome, argument, topic = unpack(ARGV, nth * 7 - 3, nth * 7 + 3)
  local stream = KEYS[at + TOPICS - 1]
  local holder, failures, deliveries = state_of(states[nth])
  local owner, left = string.match(owned[nth] or '', '^(.*) (%d+)$')
  if is_done[ref] or owner ~= token or holder ~= token then
    local pending = not states[nth] and redis.pcall('XPENDING', stream, group, id, id, 1)
    lost[#lost + 1] = pending and (pending.err or #pending > 0) and nth or -nth
  elseif outcome == 'renew' then
    redis.call('ZADD', leased, 'XX', number(now + lease), name)
  else
    is_done[ref] = true
    if not in_flight[name] then settled[#settled + 1] = {name, token} end
    in_flight[name] = (in_flight[name] or left) - 1
    if outcome == 'retry' then
      changed[#changed + 1], changed[#changed + 2] = ref, state('-', failures + 1, deliveries, now + argument)
    elseif outcome == 'release' then
      changed[#changed + 1], changed[#changed + 2] = ref, state('-', failures, deliveries - 1, 0)
    else
      if outcome == 'dead_letter' then dead_letter(stream, id, failures, deliveries, argument, topic) end
      finish_entry(name, ref, at, id)
    end
  end
end

local returned, kept = {}, {}
for _, one in ipairs(settled) do
  local name, token = unpack(one)
  if in_flight[name] == 0 then
    returned[#returned + 1] = name
  else
    kept[#kept + 1], kept[#kept + 2] = name, token .. ' ' .. in_flight[name]
  end
end
call_with({'HSET', owners}, kept)
call_with({'HSET', entries}, changed)
call_with({'HDEL', entries}, finished)
for at, ids in pairs(by_stream) do
  call_with({'XACK', KEYS[at + TOPICS - 1], group}, ids)
  if at + TOPICS - 1 == OWN then call_with({'XDEL', KEYS[OWN]}, ids) end
end
return_queues(returned, empty)
finish()
return lost
