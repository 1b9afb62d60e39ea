-- What windows hold now.
-- given: shift, span, ids of windows
-- returns MessagePack: {id, requests, tokens, open} of those that hold anything

local shift, span, ids = unpack(given)
local found = {}
for _, id in ipairs(generation and ids or {}) do
  local log = open_log(id, real + shift, span)
  expire(log)
  save(log)
  if log.count > 0 or log.open > 0 then
    found[#found + 1] = { id, log.count, log.tokens, log.open }
  end
end
return cmsgpack.pack(found)
