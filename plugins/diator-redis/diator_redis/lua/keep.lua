-- Bring back what is due and what dead workers had, and forget consumers that are long gone.
-- KEYS: again, later, kept, streams.  ARGV: group, milliseconds of a lease, at most how many, how many of the streams belong
-- to the topic, milliseconds after which an idle consumer without entries is forgotten.
-- Gives: how many came back, milliseconds until the next is due (-1: none).

local again, later, kept = KEYS[1], KEYS[2], KEYS[3]
local group, lease, limit, shared = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
allow_growth(later)

-- Where the clock of the server has gone back, what was delivered or delayed by it would wait for as long as the jump.
local clock = kept .. ':clock'
local jump = tonumber(redis.call('GET', clock) or 0) - now
redis.call('SET', clock, string.format('%.0f', now), 'EX', 86400)

local function begin_anew(stream)
  local from, pending = '-', nil
  repeat
    pending = redis.call('XPENDING', stream, group, from, '+', 1000)
    for _, entry in ipairs(pending) do
      if fields_of(stream, entry[1]) then  -- Redis 7 forgets what is claimed after its entry was deleted
        redis.call('XCLAIM', stream, group, entry[2], 0, entry[1], 'IDLE', 0, 'JUSTID')
      end
      from = '(' .. entry[1]
    end
  until #pending < 1000
end

if jump > 1000 then
  local delayed = redis.call('ZRANGE', later, 0, -1, 'WITHSCORES')
  for i = 1, #delayed, 2 do redis.call('ZADD', later, string.format('%.0f', delayed[i + 1] - jump), delayed[i]) end
  for i = 4, #KEYS do begin_anew(KEYS[i]) end
end

local moved = move_due(later, kept, again, limit)

for i = 4, #KEYS do
  local stream, own = KEYS[i], i - 3 > shared
  for _, entry in ipairs(redis.call('XPENDING', stream, group, 'IDLE', lease, '-', '+', limit)) do
    local fields = fields_of(stream, entry[1]) or DELETED
    redis.call('XADD', again, '*', unpack(recounted(fields, count(fields, 'f'), count(fields, 'd') + entry[4])))
    done(stream, group, entry[1], own)
    moved = moved + 1
  end
  for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    if field(consumer, 'pending') == 0 and field(consumer, 'idle') > tonumber(ARGV[5]) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, field(consumer, 'name'))
    end
  end
end

return {moved, next_due(later)}
