-- Append messages of one topic: all in order, or the texts of what went wrong.
-- KEYS: the topic, its streams.  ARGV: partitions as the publisher knows them (0: none is needed), then for each message
-- the number of its stream, its body, its key (empty: none), and its stamp.

local partitions = ARGV[1]
if partitions ~= '0' then
  local stored = redis.call('HGET', KEYS[1], 'partitions')
  if not stored then
    redis.call('HSET', KEYS[1], 'partitions', partitions)
  elseif stored ~= partitions then
    return redis.error_reply('PARTITIONS ' .. stored)
  end
end

local failed = {}
for i = 2, #ARGV, 4 do
  local stream, reply = KEYS[tonumber(ARGV[i]) + 1], nil
  if ARGV[i + 2] == '' then
    reply = redis.pcall('XADD', stream, '*', 'e', ARGV[i + 1])
  else
    reply = redis.pcall('XADD', stream, '*', 'e', ARGV[i + 1], 'k', ARGV[i + 2], 'n', ARGV[i + 3])
  end
  if type(reply) == 'table' and reply.err then
    failed[#failed + 1] = {(i - 2) / 4, reply.err}
  end
end
return failed
