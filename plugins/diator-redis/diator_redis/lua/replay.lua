-- Hand a dead letter out again, as new. Gives 0 where it is gone.
-- KEYS: dead, the stream that it goes to.  ARGV: its id, its new stamp.

local fields = fields_of(KEYS[1], ARGV[1])
if not fields then return 0 end
local new = {}
for i = 1, #fields, 2 do
  local name = fields[i]
  if name ~= 'w' and name ~= 'o' and name ~= 'f' and name ~= 'd' and name ~= 'n' then
    new[#new + 1] = name
    new[#new + 1] = fields[i + 1]
  end
end
new[#new + 1] = 'n'
new[#new + 1] = ARGV[2]
redis.call('XADD', KEYS[2], '*', unpack(new))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
