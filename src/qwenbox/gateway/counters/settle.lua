-- Calls that are over: each gives back what it did not use, once; a second time does nothing.
-- given: owner, shift, span, calls {id, tokens; -1: it was never admitted, purses in whose line it may stand},
--        states {id, amount, version}, gone ('', or the name of an owner that is gone: its calls are meant)
-- returns how many were open

local owner, shift, span, calls, states, gone = unpack(given)
if not generation then
  return 0
end
local now = real + shift
learn(states)

-- What an owner from before a start of the store held, only windows remember.
local is_past = gone ~= '' and gone:match('^%d+') ~= generation
local key = gone ~= '' and calls_key(gone) or owner_key(owner)
local closed = 0
for _, it in ipairs(calls) do
  local id, tokens, lines = unpack(it)
  for _, name in ipairs(lines) do
    leave_line(name, owner .. ':' .. id)
  end
  local packed = call('HGET', key, id)
  if packed then
    closed = closed + 1
    call('HDEL', key, id)
    local at, held, names, ids = unpack(cmsgpack.unpack(packed))
    for _, name in ipairs(names) do
      local log = open_log(name, now, span)
      if not is_past then
        log.open = math.max(0, log.open - 1)
      end
      correct(log, id, tokens)
      if tokens >= 0 then
        log.mean = math.floor(log.mean + (now - at - log.mean) * LATEST_SHARE)
      end
      save(log)
    end
    for _, name in ipairs(is_past and {} or ids) do
      if call('HINCRBY', purse_key(name), 'held', text(-held)) < 0 then
        call('HSET', purse_key(name), 'held', '0')
      end
    end
  end
end
return closed
