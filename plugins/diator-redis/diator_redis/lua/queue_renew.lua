-- Renew the leases of keys, by entries that are held. Returns the numbers of entries that are not held.
-- ARGV goes on with three for each: key, entry, token.

local lost = {}
for i = 4, #ARGV, 3 do
  if redis.call('HGET', out, ARGV[i + 1]) == ARGV[i + 2] then
    redis.call('ZADD', held, 'XX', number(now + lease), ARGV[i])
  else
    lost[#lost + 1] = (i - 4) / 3
  end
end
finish()
return lost
