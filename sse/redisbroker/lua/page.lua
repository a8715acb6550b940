-- Tells which entries make a page. They are read by a plain XRANGE: in a script, making them values of Lua and
-- an answer again would take twenty times as long, while nobody else is served.
--
-- KEYS   meta, record
-- ARGV   1 epoch, empty for the oldest entry   2 seq   3 about how many bytes   4 most entries
-- Reply  epoch (empty if there is no record), head, oldest, and unless the position is gone: life, and the seqs
--        behind which the page begins and with which it ends

local call = redis.call
local m = call('HMGET', KEYS[1], 'epoch', 'life', 'head', 'oldest', 'total', 'base')
if not m[1] then return {'', 0, 0} end
local epoch, life, head, oldest = m[1], m[2], tonumber(m[3]), tonumber(m[4])
local after = tonumber(ARGV[2])
if ARGV[1] == '' then
  after = oldest
elseif ARGV[1] ~= epoch or after > head or after < oldest then
  return {epoch, head, oldest}
end

-- The bytes of all entries up to one.
local function bytes(seq)
  if seq == head then return tonumber(m[5]) end
  if seq == oldest then return tonumber(m[6]) end
  local id = life .. '-' .. string.format('%.0f', seq)
  local found = call('XRANGE', KEYS[2], id, id)[1]
  return found and tonumber(found[2][4]) or 0
end

-- As each entry tells how many bytes there are up to it, a page that is neither too large nor read in small
-- pieces is found by looking at a few.
local through = math.min(head, after + tonumber(ARGV[4]))
local enough = bytes(after) + tonumber(ARGV[3])
if through > after + 1 and bytes(through) > enough then
  local from = after + 1
  while from < through do
    local middle = math.floor((from + through) / 2)
    if bytes(middle) >= enough then through = middle else from = middle + 1 end
  end
end
return {epoch, head, oldest, life, after, through}
