-- A process says that it lives. The first one after a start of the store begins a new generation: what open calls hold is what their
-- owners say again, purses are what the database says, and nothing is admitted until everybody had the time to say it.
-- given: owner, candidate (its name from now on, if the store does not know it; '' only to say that it lives), run (which start of the
--        store this is), dead, warm
-- returns MessagePack: {is_known 0/1, is_new 0/1: this is the first of a generation, place among the living owners, how many they are}

local owner, candidate, run, dead, warm = unpack(given)
local key = base .. 'state'
local is_new = candidate ~= '' and (not generation or call('HGET', key, 'run') ~= run)
if is_new then
  generation = text(real)
  call('DEL', base .. 'owners', base .. 'dead')
  call('HSET', key, 'generation', generation, 'run', run, 'warm_until', text(real + warm))
end
local is_known = generation and call('ZSCORE', base .. 'owners', owner)
if not is_known then
  owner = candidate
end
if owner ~= '' then
  call('ZADD', base .. 'owners', text(real), owner)
  call('PEXPIRE', base .. 'owners', DAY_MS)
  call('PEXPIRE', owner_key(owner), DAY_MS)
end
local living, place = call('ZRANGEBYSCORE', base .. 'owners', '(' .. text(real - dead), '+inf'), 0
table.sort(living)
for i, name in ipairs(living) do
  if name == owner then
    place = i - 1
  end
end
return cmsgpack.pack({ is_known and 1 or 0, is_new and 1 or 0, place, math.max(1, #living) })
