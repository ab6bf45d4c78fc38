-- Append messages of one topic in order, or store them until they are due. Returns the number and the error of each that failed.
-- KEYS: the topic's stream, due, scheduled.  ARGV: for each message its body, its key (empty: none), and the millisecond when
-- it is due (empty: now).

local events, due, scheduled = KEYS[1], KEYS[2], KEYS[3]
local failed, name = {}, nil

-- Names are times: of messages that are due at the same moment, the one that was published first is delivered first.
local function schedule(fields, when)
  if not name then
    local time = redis.call('TIME')
    name = time[1] * 1000000 + time[2]
  end
  local packed, reply = cmsgpack.pack(fields), nil
  repeat
    name = name + 1
    reply = redis.pcall('HSETNX', scheduled, string.format('%.0f', name), packed)
  until reply ~= 0
  if type(reply) == 'table' then return reply end
  return redis.pcall('ZADD', due, when, string.format('%.0f', name))
end

for i = 1, #ARGV, 3 do
  local fields, reply = {'e', ARGV[i]}, nil
  if ARGV[i + 1] ~= '' then fields[3], fields[4] = 'k', ARGV[i + 1] end
  if ARGV[i + 2] == '' then
    reply = redis.pcall('XADD', events, '*', unpack(fields))
  else
    reply = schedule(fields, ARGV[i + 2])
  end
  if type(reply) == 'table' and reply.err then
    failed[#failed + 1] = {(i - 1) / 3, reply.err}
  end
end
return failed
