-- Puts a question to all nodes. Questions have a stream of their own: however many there are, no event is given up
-- for them.
--
-- KEYS   … 6 the nodes, 7 the questions
-- ARGV   6 its id   7 the node that asks   8 the question   9 for how long a node lives without a beat, in µs
--        10 most questions
-- Reply  the nodes that are alive

local number = call('HINCRBY', meta, 'asks', 1)
call('XADD', KEYS[7], 'MAXLEN', '~', ARGV[10], id(number), 'i', ARGV[6], 'f', ARGV[7], 'q', ARGV[8])
return call('ZRANGEBYSCORE', KEYS[6], '(' .. int(now - tonumber(ARGV[9])), '+inf')
