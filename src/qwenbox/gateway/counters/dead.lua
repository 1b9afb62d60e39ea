-- Owners that fell silent lose their name, so that they must join again before they admit anything; their open calls are handed out.
-- given: dead (microseconds of silence), most (calls to return)
-- returns MessagePack: {owner, calls {id, purse ids}} each

local dead, most = unpack(given)
local found = {}
if not generation then
  return cmsgpack.pack(found)
end
for _, owner in ipairs(call('ZRANGEBYSCORE', base .. 'owners', '-inf', text(real - dead))) do
  call('ZREM', base .. 'owners', owner)
  call('SADD', base .. 'dead', owner)
end
for _, owner in ipairs(call('SMEMBERS', base .. 'dead')) do
  local calls = {}
  local page = call('HRANDFIELD', owner_key(owner), most, 'WITHVALUES')
  for i = 1, #page, 2 do
    calls[#calls + 1] = { page[i], cmsgpack.unpack(page[i + 1])[4] }
  end
  if #calls == 0 then
    call('SREM', base .. 'dead', owner)
  else
    found[#found + 1] = { owner, calls }
  end
end
return cmsgpack.pack(found)
