-- Read at most so many new entries from streams that the workers of a group share, without waiting.
-- KEYS: streams.  ARGV: group, consumer, how many, the number of the stream to begin with.

local room, first, found = tonumber(ARGV[3]), tonumber(ARGV[4]), {}
for i = 0, #KEYS - 1 do
  local stream = KEYS[(first + i) % #KEYS + 1]
  local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', room, 'STREAMS', stream, '>')
  if reply then
    found[#found + 1] = reply[1]
    room = room - #reply[1][2]
    if room <= 0 then break end
  end
end
return found
