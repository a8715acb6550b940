-- The beginning of the scripts that look after the record: they find it, or begin it anew if it is
-- lost, and give up what is too old or too much.
--
-- Every write of a script comes after all that may fail, and the first one is one that Redis refuses
-- when it has no memory left: then nothing was written. Redis refuses no later one.
--
-- KEYS  meta, record, ids, older ids, ended
-- ARGV  1 epoch, if the record begins anew   2 "anew" or "go on" after a restart
--       3 most events   4 longest age in µs   5 most bytes   6.. those of the script

local meta, record, ids, older, ended = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local call = redis.call
local most, longest, largest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

-- Numbers beyond 10^14 would get an exponent.
local function int(n) return string.format('%.0f', n) end

local clock = call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])

local replication = call('INFO', 'replication')
local replid = string.match(replication, 'master_replid:(%w+)')
if not replid then
  return redis.error_reply('ERR INFO does not tell the replication id, without which a failover cannot be noticed')
end
if not string.find(replication, 'role:master', 1, true) then
  return redis.error_reply('READONLY this is a replica, not the master')
end

local m = call('HMGET', meta, 'format', 'epoch', 'life', 'head', 'oldest', 'total', 'base', 'time', 'aged', 'since', 'replid', 'run')
if m[1] and m[1] ~= '1' then
  return redis.error_reply('ERR the record has the format ' .. m[1] .. ', which this version of caddy-sse does not know')
end
local epoch = m[2]
-- The life is the first half of the ids of the stream's entries, and rises with each epoch. So whoever
-- waits for the next entry of an epoch is woken by the first one of the next.
local life = tonumber(m[3])
local head, oldest = tonumber(m[4]), tonumber(m[5]) -- seqs: of the newest entry, and behind which all are kept
local total, base = tonumber(m[6]), tonumber(m[7])  -- bytes of all entries there ever were, and of those that are gone
local time = tonumber(m[8])                         -- of the newest entry
local aged = tonumber(m[9])                         -- when it was last looked for what is too old
local since = tonumber(m[10])                       -- since when ids are added to the younger set

local function begin(run)
  local last = life or 0
  epoch, life = ARGV[1], math.max(math.floor(now / 1000), last + 1)
  head, oldest, total, base, time, aged, since = 0, 0, 0, 0, 0, now, now
  call('HSET', meta, 'format', '1', 'epoch', epoch, 'life', int(life), 'head', '0', 'oldest', '0', 'total', '0', 'base', '0',
    'time', '0', 'aged', int(aged), 'since', int(since), 'asks', '0', 'replid', replid, 'run', run)
  call('UNLINK', record, ids, older, ended)
end

local function thisRun() return string.match(call('INFO', 'server'), 'run_id:(%w+)') or '' end

-- Whether the newest entries may be gone that somebody has seen: Redis was restarted, or this was a
-- replica when the record was last written to. The replication id changes whenever that is so. It also
-- changes when the first replica comes, or the last one stays away; then it is not a second id that stays.
local lost = not epoch
if epoch and replid ~= m[11] then
  local run = thisRun()
  local promoted = not string.find(replication, 'master_replid2:0+%s')
  lost = ARGV[2] == 'anew' and (run ~= m[12] or promoted)
  if not lost then call('HSET', meta, 'replid', replid, 'run', run) end
end
if lost or call('XLEN', record) ~= head - oldest then begin(thisRun()) end

local function id(seq) return int(life) .. '-' .. int(seq) end

-- The time of an entry, and the bytes of all up to it.
local function entry(seq)
  local found = call('XRANGE', record, id(seq), id(seq))[1]
  return tonumber(found[2][2]), tonumber(found[2][4])
end

-- The newest entry up to a seq that is surplus, as are all before it.
local function last(to, surplus)
  local from = oldest
  if from < to and not surplus(entry(from + 1)) then return from end
  while from < to do
    local middle = math.ceil((from + to) / 2)
    if surplus(entry(middle)) then from = middle else to = middle - 1 end
  end
  return from
end

-- Gives up the oldest entries, some more than one at a time unless few are kept.
local function trim()
  local keep = oldest
  if head - keep > most + math.min(math.floor(most / 16), 4096) then keep = head - most end
  if head - keep > 1 and total - base > largest + largest / 16 then
    local through = last(head - 1, function(_, bytes) return total - bytes > largest end)
    keep = math.max(keep, math.min(through + 1, head - 1))
  end
  local expired = now - longest
  if time <= expired then
    keep = head
  else
    keep = math.max(keep, last(head, function(at) return at <= expired end))
  end
  aged = now
  if keep > oldest then
    if keep == head then base = total else base = select(2, entry(keep)) end
    oldest = keep
    call('XTRIM', record, 'MINID', id(oldest + 1))
    call('ZREMRANGEBYSCORE', ended, '-inf', int(oldest))
  end
  call('HSET', meta, 'oldest', int(oldest), 'base', int(base), 'aged', int(aged))
end

-- Whether it is time to trim.
local function surplus()
  return head - oldest > most + math.min(math.floor(most / 16), 4096)
    or total - base > largest + largest / 16
    or math.abs(now - aged) >= math.max(longest / 64, 1000000)
end
