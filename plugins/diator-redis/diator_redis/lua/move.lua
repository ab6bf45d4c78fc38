-- Append scheduled messages that are due to the stream of their topic.
-- KEYS: events, due, scheduled.  ARGV: at most how many.
-- Gives: how many there were, milliseconds until the next is due (-1: none).

local events, due, scheduled = KEYS[1], KEYS[2], KEYS[3]
if redis.call('EXISTS', due) == 0 then return {0, -1} end
allow_growth(due)
return {move_due(due, scheduled, events, ARGV[1]), next_due(due)}
