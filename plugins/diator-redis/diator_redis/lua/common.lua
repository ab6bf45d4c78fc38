-- What several scripts share. The fields of an entry: e the event, k its key; of dead letters also t the topic, w the reason,
-- f failures, d deliveries.

local unpack = unpack or table.unpack

local function milliseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Replaces an entry that was deleted while a worker had it, or while it waited: it becomes a dead letter.
local DELETED = {'x', 'its entry was deleted from the stream'}

-- At full memory Redis refuses what may need more, unless the script has written before. Settling is what makes room.
local function allow_growth(sorted_set) redis.call('ZREM', sorted_set, '') end

-- The fields of one entry, or nil where somebody deleted it.
local function fields_of(stream, id)
  local found = redis.call('XRANGE', stream, id, id)
  return found[1] and found[1][2]
end

local function field(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
end

-- The same fields as those of a dead letter. Lua can't pass on entries of thousands of fields, which only a person can have written.
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
