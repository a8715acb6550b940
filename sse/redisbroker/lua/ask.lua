-- Puts a question into the record, where it has its place among the events.
--
-- KEYS   … 6 the nodes
-- ARGV   6 its id   7 the node that asks   8 the question   9 for how long a node lives without a beat, in µs
-- Reply  the nodes that are alive

head, time = head + 1, math.max(now, time)
total = total + 64 + #ARGV[8]
call('XADD', record, id(head), 't', int(time), 'b', int(total), 'i', ARGV[6], 'f', ARGV[7], 'q', ARGV[8])
call('HSET', meta, 'head', int(head), 'total', int(total), 'time', int(time))
if surplus() then trim() end
return call('ZRANGEBYSCORE', KEYS[6], '(' .. int(now - tonumber(ARGV[9])), '+inf')
