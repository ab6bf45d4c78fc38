-- Release everything that a consumer holds, as if it had not been delivered.

local all, mine = redis.call('HGETALL', holds), {}
for i = 1, #all, 2 do
  if string.match(all[i + 1], '^(.*)#%d+ %d+ %d+$') == consumer then mine[#mine + 1] = all[i] end
end
take_back(mine, false)
finish()
return 0
