-- Calls said again by the process that has them, open or over since; and calls of the last window that have a usage row. What is said
-- is so, whatever the store remembers of it: by whichever name the process had before, from before its last start, or nothing.
-- given: owner, names it had before, shift, span, calls {id, age, tokens; -1: it was never admitted, held, windows {id …},
--        purses {id …}, is_open 0/1}, states, is_told 0/1: everything of the last window has been told now
-- returns MessagePack: ids of purses that must be given as states first; nothing is done then

local owner, former, shift, span, calls, states, is_told = unpack(given)
local now = real + shift
keep(states)
local unknown, seen = {}, {}
for _, it in ipairs(calls) do
  for _, name in ipairs(it[6]) do
    if it[7] == 1 and not seen[name] and not is_known(name) then
      unknown[#unknown + 1] = name
    end
    seen[name] = true
  end
end
if #unknown > 0 then
  return cmsgpack.pack(unknown)
end

local names, past = { owner }, {}
for _, name in ipairs(former) do
  names[#names + 1] = name
end
for _, name in ipairs(call('ZRANGE', base .. 'gone', 0, -1)) do
  if name:match('^%d+') ~= generation then
    past[#past + 1] = calls_key(name)
  end
end

-- What the store has of a call; it is out of every list then, and of every line for money.
local function take(id, purses)
  local found = nil
  for _, name in ipairs(names) do
    local packed = call('HGET', owner_key(name), id)
    if packed then
      found = packed
      call('HDEL', owner_key(name), id)
    end
    for _, purse in ipairs(purses) do
      leave_line(purse, name .. ':' .. id)
    end
  end
  for _, key in ipairs(past) do
    call('HDEL', key, id)
  end
  return found
end

local function enter(log, id, age, tokens)
  if call('ZSCORE', log.at, id) then
    return correct(log, id, tokens)
  end
  if tokens < 0 or age > span then
    return
  end
  expire(log)
  call('ZADD', log.at, text(now - age), id)
  call('HSET', log.use, id, text(tokens))
  log.tokens = log.tokens + tokens
  log.last = math.max(log.last, now - age)
  log.mark, log.marked = 0, 0 -- it may lie before the mark
end

for _, it in ipairs(calls) do
  local id, age, tokens, held, windows, purses, is_open = unpack(it)
  local packed = take(id, purses)
  if packed and is_open == 0 then
    call('HSET', owner_key(owner), id, packed) -- its end is told next
  else
    for _, name in ipairs(windows) do
      local log = open_log(name, now, span)
      enter(log, id, age, tokens)
      log.open = log.open + (packed and 0 or is_open)
      save(log)
    end
    if is_open == 1 then
      local known = packed and cmsgpack.unpack(packed)[2] or 0
      for _, name in ipairs(purses) do
        call('HINCRBY', purse_key(name), 'held', text(held - known))
      end
      call('HSET', owner_key(owner), id, cmsgpack.pack({ now - age, held, windows, purses }))
    end
  end
end
if is_told == 1 then
  call('HSET', base .. 'state', 'told', '1')
end
return cmsgpack.pack({})
