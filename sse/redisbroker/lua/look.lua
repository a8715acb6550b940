-- Tells what the record is, and gives up what is too old.
--
-- ARGV   6 "ended" for the channels that have ended, "probe" to find out whether Redis takes writes
--        7 an epoch   8 a seq   9 the time of the entry there, for one who has seen that: if it is not there,
--        the record is not the one that it was, and begins anew
-- Reply  epoch, life, head, oldest, the time now, channels and the seqs that ended them, the number of the newest question

if ARGV[7] == epoch then
  local seq = tonumber(ARGV[8])
  if seq > head or (seq > oldest and ARGV[9] ~= '' and entry(seq) ~= tonumber(ARGV[9])) then begin(thisRun()) end
end
if ARGV[6] == 'probe' then call('HSET', meta, 'probed', int(now)) end
if head > oldest and (surplus() or time <= now - longest) then trim() end
return {epoch, int(life), head, oldest, now, ARGV[6] == 'ended' and call('ZRANGE', ended, 0, -1, 'WITHSCORES') or {},
  tonumber(call('HGET', meta, 'asks') or 0)}
