-- Release all entries that a consumer holds. Their delivery does not count.

local all, mine = redis.call('HGETALL', holders), {}
for i = 1, #all, 2 do
  if string.match(all[i + 1], '^(.*)#%d+ %d+ %d+$') == consumer then mine[#mine + 1] = all[i] end
end
end_leases(mine, false)
finish()
return 0
