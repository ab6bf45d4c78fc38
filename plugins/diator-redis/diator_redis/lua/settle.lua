-- Settle entries of shared streams, each only if it is still this consumer's. Gives the numbers of those that are not.
-- KEYS: again, later, kept, dead, streams.  ARGV: group, consumer, how many of the streams belong to the topic (the others are
-- the subscription's own), then six for each: number of the stream, id, outcome, its argument, failures, deliveries.

local group, consumer, shared = ARGV[1], ARGV[2], tonumber(ARGV[3])
local again, later, kept, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local lost = {}
allow_growth(later)

-- Whether an outcome that is reported once more, since its reply was lost, is in effect already.
local function repeated(outcome, name)
  if outcome == 'retry' then return redis.call('HEXISTS', kept, name) == 1 end
  if outcome == 'park' then
    for _, letter in ipairs(redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 100)) do
      if field(letter[2], 'o') == name then return true end
    end
  end
  return false
end

for i = 4, #ARGV, 6 do
  local number, id, outcome, argument = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local failures, deliveries = ARGV[i + 4], ARGV[i + 5]
  local stream = KEYS[number + 4]
  local own, name = number > shared, stream .. '/' .. id
  local mine = #redis.call('XPENDING', stream, group, id, id, 1, consumer) == 1
  local fields = mine and outcome ~= 'ack' and (fields_of(stream, id) or DELETED)
  if not mine then
    if not repeated(outcome, name) then lost[#lost + 1] = (i - 4) / 6 end
  elseif outcome == 'ack' then
    done(stream, group, id, own)
  else
    if outcome == 'release' then
      redis.call('XADD', again, '*', unpack(recounted(fields, failures, deliveries)))
    elseif outcome == 'retry' then
      redis.call('HSET', kept, name, cmsgpack.pack(recounted(fields, failures, deliveries)))
      redis.call('ZADD', later, milliseconds() + tonumber(argument), name)
    else
      redis.call('XADD', dead, '*', 'w', argument, 'o', name, unpack(recounted(fields, failures, deliveries)))
    end
    done(stream, group, id, own)
  end
end
return lost
