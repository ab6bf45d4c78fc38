-- Count the pending and unread entries of a group, a thousand at a time.
-- KEYS: the stream.  ARGV: the group, the position to continue at (empty: start, with the pending entries).
-- Returns the count, the position to continue at (empty: finished), and in the first call the age of the oldest entry in milliseconds
-- (-1: there is none). Returns nothing if the group does not exist.

if redis.call('EXISTS', KEYS[1]) == 0 then return false end
local position, number = ARGV[2], 0
if position == '' then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    if field(group, 'name') == ARGV[1] then
      position, number = field(group, 'last-delivered-id'), field(group, 'pending')
    end
  end
  if position == '' then return false end
end
local found = redis.call('XRANGE', KEYS[1], '(' .. position, '+', 'COUNT', 1000)
local oldest = number > 0 and redis.call('XPENDING', KEYS[1], ARGV[1])[2] or #found > 0 and found[1][1]
local age = ARGV[2] == '' and oldest and math.max(0, milliseconds() - string.match(oldest, '^%d+')) or -1
return {number + #found, #found == 1000 and found[1000][1] or '', age}
