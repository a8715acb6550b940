-- Notes that a node is alive, forgets those that are not, and tells which are.
--
-- KEYS   1 the nodes
-- ARGV   1 the node, empty for one who only asks   2 for how long a node lives without a beat, in µs
-- Reply  the nodes that are alive

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local dead = string.format('%.0f', now - tonumber(ARGV[2]))
if ARGV[1] ~= '' then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', dead)
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. dead, '+inf')
