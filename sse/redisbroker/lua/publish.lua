-- Orders and appends events, all or none.
--
-- ARGV   6 for how long ids are remembered, in µs   7 most ids   8 most ended channels
--        9 the time in µs after which nobody waits for the answer any more
--        and of each event: its id's key, its channels, how it ends them, its name, data and retry
-- Reply  "ok", epoch, the seq of each event
--        "ended", epoch, index of the event, channel, the seq that ended it or 0 for one of this publish
--        "full", how many ids are remembered
--        "late"

-- The publisher was told that nothing was kept, and may publish the same again.
if now > tonumber(ARGV[9]) then return {'late'} end

local window = tonumber(ARGV[6])
local first, fields = 9, 6
local count = (#ARGV - first) / fields

-- Ids are remembered in two sets, of which the older is dropped when the younger begins: each for the
-- window at least, and for twice as long at most. Redis' own expiry would leave it to an eviction policy to
-- forget them before.
if now < since then since = now end -- the clock was set back
local age = now - since
local function known(key)
  if age >= 2 * window then return nil end
  return call('HGET', ids, key) or (age < window and call('HGET', older, key)) or nil
end

local seqs, fresh, named, ending = {}, {}, 0, nil
local someEnded = call('ZCARD', ended) > 0
for i = 1, count do
  local at = first + (i - 1) * fields
  local key, channels = ARGV[at + 1], ARGV[at + 2]
  local seq = key ~= '' and not fresh[key] and known(key)
  if seq then
    seqs[i] = tonumber(seq)
  elseif not fresh[key] then
    if key ~= '' then fresh[key], named = i, named + 1 end
    if someEnded or ending then
      for channel in string.gmatch(channels, '[^,]+') do
        local by = someEnded and call('ZSCORE', ended, channel)
        if by then return {'ended', epoch, i - 1, channel, tonumber(by)} end
        if ending and ending[channel] then return {'ended', epoch, i - 1, channel, 0} end
      end
    end
    if ARGV[at + 3] ~= '0' then
      ending = ending or {}
      for channel in string.gmatch(channels, '[^,]+') do ending[channel] = true end
    end
  end
end
if named > 0 then
  local remembered = 0
  if age < 2 * window then remembered = call('HLEN', ids) end
  if age < window then remembered = remembered + call('HLEN', older) end
  if remembered + named > tonumber(ARGV[7]) then return {'full', remembered} end
end

local before = head
for i = 1, count do
  local at = first + (i - 1) * fields
  local key, channels, ends, name, data, retry = unpack(ARGV, at + 1, at + fields)
  if not seqs[i] and key ~= '' and fresh[key] ~= i then
    seqs[i] = seqs[fresh[key]]
  elseif not seqs[i] then
    head, time = head + 1, math.max(now, time)
    total = total + 64 + #channels + #name + #data
    seqs[i] = head
    local add = {record, id(head), 't', int(time), 'b', int(total), 'c', channels}
    if name ~= '' then add[#add + 1] = 'n'; add[#add + 1] = name end
    if data ~= '' then add[#add + 1] = 'd'; add[#add + 1] = data end
    if retry ~= '0' then add[#add + 1] = 'r'; add[#add + 1] = retry end
    if ends ~= '0' then add[#add + 1] = 'x'; add[#add + 1] = ends end
    call('XADD', unpack(add))
  end
end
local reply = {'ok', epoch}
for i = 1, count do reply[i + 2] = seqs[i] end
if head == before then return reply end -- all are repeats

if named > 0 then
  if age >= window then
    call('UNLINK', older)
    if age >= 2 * window then call('UNLINK', ids) elseif call('EXISTS', ids) == 1 then call('RENAME', ids, older) end
    since = now
  end
  for key, i in pairs(fresh) do
    if key ~= '' then call('HSET', ids, key, int(seqs[i])) end
  end
end
if ending then
  for i = 1, count do
    local at = first + (i - 1) * fields
    if seqs[i] > before and ARGV[at + 3] ~= '0' then
      for channel in string.gmatch(ARGV[at + 2], '[^,]+') do call('ZADD', ended, int(seqs[i]), channel) end
    end
  end
  call('ZREMRANGEBYRANK', ended, 0, -1 - tonumber(ARGV[8]))
end
call('HSET', meta, 'head', int(head), 'total', int(total), 'time', int(time), 'since', int(since))
if surplus() then trim() end
return reply
