-- Count what a group has pending and unread, a thousand entries at a time.
-- KEYS: the stream.  ARGV: the group, where to go on (empty: begin, with what is pending).
-- Returns: how many, where to go on (empty: at the end), and at the beginning the age of the oldest in milliseconds. Nothing if there is
-- no such group.

local position, number, oldest = ARGV[2], 0, nil
if position == '' then
  local group = group_of(KEYS[1], ARGV[1])
  if not group then return false end
  position, number, oldest = field(group, 'last-delivered-id'), field(group, 'pending'), oldest_of(KEYS[1], group)
end
local found = redis.call('XRANGE', KEYS[1], '(' .. position, '+', 'COUNT', 1000)
local age = oldest and math.max(0, milliseconds() - string.match(oldest, '^%d+'))
return {number + #found, #found == 1000 and found[1000][1] or '', age or -1}
