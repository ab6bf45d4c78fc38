-- Begin leases anew, of entries that are still this consumer's. Gives the numbers of those that are not.
-- KEYS: streams.  ARGV: group, consumer, then the number of the stream and the id of each.

local lost = {}
for i = 3, #ARGV, 2 do
  local stream, id = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  if #redis.call('XPENDING', stream, ARGV[1], id, id, 1, ARGV[2]) == 1 then
    -- Redis 7 forgets what is claimed after its entry was deleted, and its outcome could not be recorded.
    if fields_of(stream, id) then redis.call('XCLAIM', stream, ARGV[1], ARGV[2], 0, id, 'JUSTID') end
  else
    lost[#lost + 1] = (i - 3) / 2
  end
end
return lost
