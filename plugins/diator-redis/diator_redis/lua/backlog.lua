-- Count what a group has pending and unread, a thousand entries at a time.
-- KEYS: the stream.  ARGV: the group, where to go on (empty: begin, with what is pending).
-- Gives: how many, where to go on (empty: at the end), and at first the age of the oldest in milliseconds (-1: there is none).
-- Nothing if there is no such group.

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
