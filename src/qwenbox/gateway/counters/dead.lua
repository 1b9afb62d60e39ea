-- Owners that fell silent lose their name, so that they must join again before they admit anything; their open calls are handed out.
-- Owners from before a start of the store are handed out as well, once they had the time to say their calls again: what is left then
-- is nobody's.
-- given: dead (microseconds of silence), most (calls to return), done (names that were dealt with, as they were returned)
-- returns MessagePack: {name, is_past 0/1, until when it heard the store, calls {id, purse ids}} each

local dead, most, done = unpack(given)
local found = {}
if not generation then
  return cmsgpack.pack(found)
end
for _, name in ipairs(done) do
  if call('EXISTS', calls_key(name)) == 0 then
    call('ZREM', base .. 'gone', name)
    call('HDEL', base .. 'heard', name:match(':(.*)$'))
  end
end
local silent = call('ZRANGEBYSCORE', base .. 'owners', '-inf', text(real - dead), 'WITHSCORES')
for i = 1, #silent, 2 do
  call('ZREM', base .. 'owners', silent[i])
  call('ZADD', base .. 'gone', silent[i + 1], generation .. ':' .. silent[i])
end
if #silent > 0 then
  begin_edition()
end
local gone = call('ZRANGE', base .. 'gone', 0, -1, 'WITHSCORES')
for i = 1, #gone, 2 do
  local name, seen = gone[i], tonumber(gone[i + 1])
  local is_past = name:match('^%d+') ~= generation
  if not is_past or seen <= real - dead then
    local calls, page = {}, call('HRANDFIELD', calls_key(name), most, 'WITHVALUES')
    for k = 1, #page, 2 do
      calls[#calls + 1] = { page[k], cmsgpack.unpack(page[k + 1])[4] }
    end
    local heard = call('HGET', base .. 'heard', name:match(':(.*)$'))
    found[#found + 1] = { name, is_past and 1 or 0, tonumber(heard or text(seen)), calls }
  end
end
return cmsgpack.pack(found)
