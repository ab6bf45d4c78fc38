-- Give back what a consumer has of shared streams, and remove it when it has nothing left. Gives how much was given back.
-- KEYS: again, streams.  ARGV: group, consumer, at most how many, how many of the streams belong to the topic.

local group, consumer, limit, shared = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local moved = 0
redis.call('XACK', KEYS[1], group, '0-0') -- as allow_growth does
for i = 2, #KEYS do
  local stream, own = KEYS[i], i - 1 > shared
  local pending = redis.pcall('XPENDING', stream, group, '-', '+', limit, consumer)
  if not pending.err then
    for _, entry in ipairs(pending) do
      local fields = fields_of(stream, entry[1]) or DELETED
      redis.call('XADD', KEYS[1], '*', unpack(recounted(fields, count(fields, 'f'), count(fields, 'd'))))
      done(stream, group, entry[1], own)
      moved = moved + 1
    end
    if #pending < limit then redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer) end
  end
end
return moved
