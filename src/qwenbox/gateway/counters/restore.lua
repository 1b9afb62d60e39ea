-- Calls that are open, said again by the process that has them: by whichever name it had before, known or forgotten by the store.
-- given: owner, former owner, shift, span, calls {id, age, tokens, held, windows {id …}, purses {id …}, is_open 0/1}, states
-- returns MessagePack: ids of purses that must be given as states first; nothing is done then

local owner, former, shift, span, calls, states = unpack(given)
local now = real + shift
learn(states)
local unknown, seen = {}, {}
for _, it in ipairs(calls) do
  for _, name in ipairs(it[6]) do
    if it[7] == 1 and not seen[name] and call('HEXISTS', purse_key(name), 'amount') == 0 then
      unknown[#unknown + 1] = name
    end
    seen[name] = true
  end
end
if #unknown > 0 then
  return cmsgpack.pack(unknown)
end

local function enter(log, id, age, tokens)
  if age > span or call('ZSCORE', log.at, id) then
    return
  end
  expire(log)
  call('ZADD', log.at, text(now - age), id)
  call('HSET', log.use, id, text(tokens))
  log.tokens = log.tokens + tokens
  log.last = math.max(log.last, now - age)
  log.ahead, log.ahead_tokens = 0, 0 -- it may lie before the mark
end

for _, it in ipairs(calls) do
  local id, age, tokens, held, names, ids, is_open = unpack(it)
  local packed = call('HGET', owner_key(former), id)
  if packed then
    call('HDEL', owner_key(former), id)
    call('HSET', owner_key(owner), id, packed)
  elseif call('HEXISTS', owner_key(owner), id) == 0 then
    for _, name in ipairs(names) do
      local log = open_log(name, now, span)
      enter(log, id, age, tokens)
      log.open = log.open + is_open
      save(log)
    end
    if is_open == 1 then
      for _, name in ipairs(ids) do
        call('HINCRBY', purse_key(name), 'held', text(held))
      end
      call('HSET', owner_key(owner), id, cmsgpack.pack({ now - age, held, names, ids }))
    end
  end
end
return cmsgpack.pack({})
