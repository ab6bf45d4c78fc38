-- Settle entries, each only by the lease under which it was handed out. Gives the numbers of those that are not held by it.
-- ARGV goes on with seven for each: key, entry, token, outcome, its argument, 1 if its stream is the subscription's own, the
-- stream for dead letters.

local lost, returned, removed, keys = {}, {}, {}, {}
local settled, finished, by_stream, own_streams = {}, {}, {}, {}

local function park(ref, stream, id, reason, dead)
  local failures, deliveries = counts_of(ref)
  local fields = fields_of(stream, id) or DELETED
  redis.call('XADD', dead, '*', 'w', reason, unpack(recounted(fields, failures, deliveries + 1)))
end

local function settle(key, ref, outcome, argument, own, dead)
  settled[#settled + 1] = ref
  if outcome == 'retry' then
    local failures, deliveries = counts_of(ref)
    set_counts(ref, failures + 1, deliveries + 1, now + argument)
  elseif outcome ~= 'release' then
    local stream, id = parts(ref)
    if outcome == 'park' then park(ref, stream, id, argument, dead) end
    removed[key] = removed[key] or {}
    removed[key][#removed[key] + 1] = ref
    finished[#finished + 1] = ref
    by_stream[stream] = by_stream[stream] or {}
    by_stream[stream][#by_stream[stream] + 1] = id
    own_streams[stream] = own
  end
end

-- Remove entries from the queue of their key: they are all that was handed out of it, or some.
local function remove(key, refs, many)
  if #refs == many then
    redis.call('LTRIM', queue(key), many, -1)
  else
    for _, ref in ipairs(refs) do redis.call('LREM', queue(key), 1, ref) end
  end
end

local is_done, refs = {}, {}
for i = 5, #ARGV, 7 do refs[#refs + 1] = ARGV[i] end
local tokens = values_of(out, refs)
for i = 4, #ARGV, 7 do
  local key, ref = ARGV[i], ARGV[i + 1]
  if not is_done[ref] and tokens[(i + 3) / 7] == ARGV[i + 2] then
    is_done[ref] = true
    settle(key, ref, ARGV[i + 3], ARGV[i + 4], ARGV[i + 5] == '1', ARGV[i + 6])
    if not returned[key] then keys[#keys + 1] = key end
    returned[key] = (returned[key] or 0) + 1
  elseif not is_done[ref] then
    lost[#lost + 1] = (i - 4) / 7
  end
end

local all_back, some_back = {}, {}
local in_force = values_of(holds, keys)
for at, key in ipairs(keys) do
  local token, many, left = string.match(in_force[at] or '', '^(.*) (%d+) (%d+)$')
  if removed[key] then remove(key, removed[key], tonumber(many)) end
  if token and left - returned[key] > 0 then
    some_back[#some_back + 1] = key
    some_back[#some_back + 1] = token .. ' ' .. many .. ' ' .. number(left - returned[key])
  else
    all_back[#all_back + 1] = key
  end
end
call_with({'HSET', holds}, some_back)
call_with({'HDEL', out}, settled)
if has_counts then call_with({'HDEL', counts}, finished) end
for stream, ids in pairs(by_stream) do
  call_with({'XACK', stream, group}, ids)
  if own_streams[stream] then call_with({'XDEL', stream}, ids) end
end
let_go(all_back)
finish()
return lost
