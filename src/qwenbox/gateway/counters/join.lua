-- A process says that it lives, or joins: anew, or again after it was cut off. The first one after a start of the store begins a new
-- generation: what open calls hold is what their owners say again, purses are what the database says, and nothing is admitted until
-- everybody had the time to say it. One of those who join tells the calls of the last window; if it dies, another does.
-- given: owner, candidate (its name from now on, if the store does not know it; '' only to say that it lives), run (which start of the
--        store this is), dead, warm, heard (until when the process has heard the store, 0: never; what it says may be on its way for
--        as long as the store is frozen)
-- returns MessagePack: {is_known 0/1, past 0: told, 1: to be told by you, 2: somebody else is about to tell it, place among the living
--         owners, how many they are, the time, until when everybody heard the store}

local owner, candidate, run, dead, warm, heard = unpack(given)
local key, joins = base .. 'state', candidate ~= ''
if joins and (not generation or call('HGET', key, 'run') ~= run) then
  for _, name in ipairs(call('ZRANGE', base .. 'owners', 0, -1)) do
    call('ZADD', base .. 'gone', text(real), generation .. ':' .. name)
  end
  generation = text(real)
  call('DEL', base .. 'owners', base .. 'heard')
  call('HDEL', key, 'told', 'teller')
  call('HSET', key, 'generation', generation, 'run', run, 'warm_until', text(real + warm))
end

local since = real
if joins then
  begin_edition()
  for _, at in ipairs(call('HVALS', base .. 'heard')) do
    since = math.min(since, tonumber(at))
  end
end

local is_known = generation and call('ZSCORE', base .. 'owners', owner)
if not is_known then
  owner = candidate
end
if owner ~= '' then
  call('ZADD', base .. 'owners', text(real), owner)
  call('HSET', base .. 'heard', owner, text(heard > 0 and heard or real))
  call('PEXPIRE', base .. 'owners', DAY_MS)
  call('PEXPIRE', base .. 'heard', DAY_MS)
  call('PEXPIRE', owner_key(owner), DAY_MS)
end

local function past()
  local told, teller = unpack(call('HMGET', key, 'told', 'teller'))
  if told or not joins then
    return 0
  end
  local seen = teller and teller ~= owner and call('ZSCORE', base .. 'owners', teller)
  if seen and tonumber(seen) > real - dead then
    return 2
  end
  call('HSET', key, 'teller', owner)
  return 1
end

local living, place = call('ZRANGEBYSCORE', base .. 'owners', '(' .. text(real - dead), '+inf'), 0
table.sort(living)
for i, name in ipairs(living) do
  if name == owner then
    place = i - 1
  end
end
return cmsgpack.pack({ is_known and 1 or 0, past(), place, math.max(1, #living), real, since })
