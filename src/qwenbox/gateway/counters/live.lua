-- What windows hold now.
-- given: shift, span, ids of windows
-- returns MessagePack: {id, requests, tokens, open, microseconds until the oldest and until all of it is gone} of those that hold anything

local shift, span, ids = unpack(given)
local found = {}
for _, id in ipairs(generation and ids or {}) do
  local log = open_log(id, real + shift, span)
  expire(log)
  save(log)
  if log.count > 0 or log.open > 0 then
    local oldest = tonumber(call('ZRANGE', log.at, 0, 0, 'WITHSCORES')[2] or log.now - span)
    found[#found + 1] = { id, log.count, log.tokens, log.open, math.max(0, oldest + span - log.now), picture(log)[4] }
  end
end
return cmsgpack.pack(found)
