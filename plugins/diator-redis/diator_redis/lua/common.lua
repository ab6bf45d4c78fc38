-- Functions that several scripts use. The fields of an entry: e is the event, k its key. Dead letters also have t, the topic, w, the
-- reason, f, the failure count, and d, the delivery count.

local unpack = unpack or table.unpack

local function milliseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Stands for an entry that was deleted from its stream before it was settled: it becomes a dead letter.
local DELETED = {'x', 'its entry was deleted from the stream'}

-- If its memory is full, Redis rejects commands that may need more, unless the script has written before. Settling frees memory.
local function allow_growth(sorted_set) redis.call('ZREM', sorted_set, '') end

-- The fields of one entry, or nil if it was deleted.
local function fields_of(stream, id)
  local found = redis.call('XRANGE', stream, id, id)
  return found[1] and found[1][2]
end

local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- The fields of an entry with these counts. Lua cannot pass on thousands of fields, which only another program can have written.
local function with_counts(fields, failures, deliveries)
  local new, many = {}, #fields > 2000
  if many then new = {'x', 'it has ' .. #fields / 2 .. ' fields'} end
  for i = 1, #fields, 2 do
    local name = fields[i]
    if name ~= 'f' and name ~= 'd' and name ~= 't' and (not many or name == 'e' or name == 'k') and #new < 2000 then
      new[#new + 1], new[#new + 2] = name, fields[i + 1]
    end
  end
  new[#new + 1], new[#new + 2], new[#new + 3], new[#new + 4] = 'f', tostring(failures), 'd', tostring(deliveries)
  return new
end
