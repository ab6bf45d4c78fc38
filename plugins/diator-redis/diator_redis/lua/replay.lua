-- Deliver a dead letter again as a new message. Returns 0 if it no longer exists.
-- KEYS: the dead letters, the stream to append to.  ARGV: the id of the dead letter.

local fields = fields_of(KEYS[1], ARGV[1])
if not fields then return 0 end
local new = {}
for i = 1, #fields, 2 do
  local name = fields[i]
  if name ~= 'w' and name ~= 'f' and name ~= 'd' then
    new[#new + 1] = name
    new[#new + 1] = fields[i + 1]
  end
end
redis.call('XADD', KEYS[2], '*', unpack(new))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
