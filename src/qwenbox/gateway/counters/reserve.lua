-- One call's admission: windows and money in one step, all or nothing. The rules are those of window.py and money.py.
-- given: owner, id, shift, span, windows {id, requests, tokens, concurrency; -1 without limit}, purses {id, allowance},
--        {input, output, least, is_flexible 0/1, input_scaled, output_price, choices}, states {id, amount, version},
--        has_waited 0/1: whether it may stand in a line for money
-- returns MessagePack: {code, …}, see the table of codes

local ADMITTED, REFUSED, BROKE, WAIT, UNKNOWN, WARMING, STRANGER = 0, 1, 2, 3, 4, 5, 6
local RATE, QUOTA = 0, 1
local UNIT = 1000000

local owner, id, shift, span, windows, purses, worst, states, has_waited = unpack(given)
local input, output, least, is_flexible, scaled, price, choices = unpack(worst)
local now = real + shift
local me = owner .. ':' .. id

local function pack(...)
  return cmsgpack.pack({ ... })
end

if not generation or not call('ZSCORE', base .. 'owners', owner) then
  return pack(STRANGER)
end
if real < warm_until then
  return pack(WARMING, warm_until - real)
end
learn(states)

local function whole(tokens)
  return tokens - tokens % choices
end

local function cost(tokens)
  local sum = scaled + tokens * price
  return whole_part(sum + UNIT - 1, UNIT)
end

local function leave_lines()
  if has_waited == 1 then
    for _, purse in ipairs(purses) do
      leave_line(purse[1], me)
    end
  end
end

-- Windows.

local function at_rank(key, rank)
  return tonumber(call('ZRANGE', key, rank, rank, 'WITHSCORES')[2])
end

-- Whoever comes now has kept a promise, or keeps to it as well as its client can: the moment promised. The promise is over.
local function claim(log)
  if log.promises == 0 then
    return nil
  end
  local first = call('ZRANGE', log.promise, 0, 0, 'WITHSCORES')
  local name, at = first[1], tonumber(first[2])
  if at > now then
    call('ZREMRANGEBYSCORE', log.far, '-inf', '(' .. text(now - IMPATIENT - IMPATIENT_GRACE))
    name = call('ZRANGEBYSCORE', log.far, '-inf', text(now - IMPATIENT), 'LIMIT', 0, 1)[1]
    at = name and tonumber(call('ZSCORE', log.promise, name))
  end
  if name then
    end_promise(log, name)
  end
  return at
end

local function requests_free_at(log, limit)
  local ahead = log.count + log.promises - math.max(1, limit)
  if ahead < 0 then
    return now
  end
  if ahead < log.count then
    return at_rank(log.at, ahead) + span
  end
  return math.max(at_rank(log.promise, ahead - log.count), now) + LATE + span
end

-- Move a mark so that the members before it are the fewest that hold `excess` tokens; what it was is where that was last asked.
local function mark(log, key, fields, tokens_of, excess)
  local n, sum = log[fields[1]], log[fields[2]]
  while sum < excess do
    local names = call('ZRANGE', key, n, n + 49)
    local each = tokens_of(log, names)
    for i = 1, #names do
      if sum >= excess then
        break
      end
      n, sum = n + 1, sum + each[i]
    end
    if #names == 0 then
      break
    end
  end
  local is_least = false
  while n > 1 and not is_least do
    local names = call('ZRANGE', key, math.max(0, n - 50), n - 1)
    local each = tokens_of(log, names)
    for i = #names, 1, -1 do
      if n <= 1 or sum - each[i] < excess then
        is_least = true
        break
      end
      n, sum = n - 1, sum - each[i]
    end
  end
  log[fields[1]], log[fields[2]] = n, sum
  return at_rank(key, n - 1)
end

local function tokens_free_at(log, limit)
  local excess = log.tokens + log.promised + input + least - limit
  if excess <= 0 then
    return now
  end
  if excess <= log.tokens then
    return mark(log, log.at, { 'mark', 'marked' }, entry_tokens, excess) + span
  end
  excess = excess - log.tokens
  if excess > log.promised then
    return now + span
  end
  return math.max(mark(log, log.promise, { 'promise_mark', 'promise_marked' }, promise_tokens, excess), now) + LATE + span
end

local function make_promise(log, requests, limit, at, tokens)
  local most = requests < 0 and MOST_PROMISES or MOST_LIMITS * requests
  if log.promises >= most or (limit >= 0 and log.promised + tokens > MOST_LIMITS * limit) then
    return
  end
  log.number = log.number + 1
  local name, ends_ms = text(tokens) .. ':' .. text(log.number), math.ceil((at - now + GRACE) / 1000) + 1000
  call('ZADD', log.promise, text(at), name)
  log.promises, log.promised = log.promises + 1, log.promised + tokens
  if log.promise_mark > 0 and call('ZRANK', log.promise, name) < log.promise_mark then
    log.promise_mark, log.promise_marked = log.promise_mark + 1, log.promise_marked + tokens
  end
  if at - now > IMPATIENT then
    call('ZADD', log.far, text(now), name)
    call('PEXPIRE', log.far, DAY_MS)
  end
  call('PEXPIRE', log.promise, math.max(DAY_MS, ends_ms))
end

local logs, is_refused = {}, false
for i, window in ipairs(windows) do
  local log = open_log(window[1], now, span)
  expire(log)
  logs[i] = log
  local _, requests, tokens, concurrency = unpack(window)
  if (requests >= 0 and log.count >= requests) or (concurrency >= 0 and log.open >= concurrency) then
    is_refused = true
  end
  if tokens >= 0 then
    local left = tokens - log.tokens - input
    if left < least then
      is_refused = true
    elseif is_flexible == 1 then
      output = math.min(output, math.max(least, whole_part(left, 2)))
    end
  end
end

local function pictures()
  local all = {}
  for i, log in ipairs(logs) do
    all[i] = picture(log)
  end
  return all
end

if is_refused then
  local free_at, kind, kind_at = now, RATE, 0
  local function later(at, is_cause, cause)
    free_at = math.max(free_at, at)
    if is_cause and at > kind_at then
      kind, kind_at = cause, at
    end
  end
  for i, log in ipairs(logs) do
    local _, requests, tokens, concurrency = unpack(windows[i])
    -- Who comes when it was told to, and is refused because somebody was faster, is told anew; who cannot wait so long keeps its moment.
    local kept_at = claim(log)
    local is_kept = kept_at and kept_at > now
    if requests >= 0 then
      later(is_kept and kept_at or requests_free_at(log, requests), log.count >= requests, RATE)
    end
    if tokens >= 0 then
      later(is_kept and kept_at or tokens_free_at(log, tokens), log.tokens + input + least > tokens, QUOTA)
    end
    if concurrency >= 0 and log.open >= concurrency then
      later(now + math.min(span, math.ceil(log.mean * (log.promises + 1) / concurrency)), true, RATE)
    end
  end
  free_at = free_at + MARGIN
  for i, log in ipairs(logs) do
    make_promise(log, windows[i][2], windows[i][3], free_at, input + least)
    save(log)
  end
  leave_lines()
  return pack(REFUSED, kind, free_at - now, pictures())
end
output = whole(output)

-- Money.

local rows, unknown, is_tight = {}, {}, false
for i, purse in ipairs(purses) do
  local found = call('HMGET', purse_key(purse[1]), 'amount', 'held', 'waiting')
  if not found[1] then
    unknown[#unknown + 1] = purse[1]
  else
    local row = { id = purse[1], settled = tonumber(found[1]) + purse[2], held = tonumber(found[2] or '0') }
    row.waiting = tonumber(found[3] or '0')
    rows[i] = row
    is_tight = is_tight or row.waiting > 0 or row.settled - row.held < cost(output)
  end
end
if #unknown > 0 then
  return pack(UNKNOWN, unknown)
end

-- The first in a purse's line; those whose process is gone have left it.
local function first_in_line(row)
  while true do
    local who = call('ZRANGE', line_key(row.id), 0, 0)[1]
    if not who then
      return nil
    end
    if call('ZSCORE', base .. 'owners', who:match('^[^:]*')) then
      return who
    end
    leave_line(row.id, who)
  end
end

-- Stand in this purse's line, and in no other, at the place of the first arrival.
local function stand(row)
  local arrived = nil
  if has_waited == 1 then
    for _, other in ipairs(rows) do
      arrived = arrived or tonumber(call('ZSCORE', line_key(other.id), me) or '')
      if other ~= row then
        leave_line(other.id, me)
      end
    end
  end
  call('ZADD', line_key(row.id), text(arrived or real), me)
  call('PEXPIRE', line_key(row.id), DAY_MS)
  count_line(row.id)
end

if is_tight and cost(output) > 0 then
  local smallest, most = cost(math.min(choices, output)), cost(output)
  for i, row in ipairs(rows) do
    if row.settled < smallest then
      leave_lines()
      return pack(BROKE, i - 1)
    end
    if row.held == 0 and row.settled < most and price > 0 then
      output = math.min(output, whole(whole_part(row.settled * UNIT - scaled, price)))
    end
  end
  for i, row in ipairs(rows) do
    local first = row.waiting > 0 and first_in_line(row)
    local is_anothers = first and first ~= me
    if row.settled - row.held < cost(output) or is_anothers then
      stand(row)
      first = first_in_line(row)
      return pack(WAIT, i - 1, first:match(':(.*)$'))
    end
  end
end
leave_lines()

-- Everything is taken now.

local held, names, ids, moment = #purses > 0 and cost(output) or 0, {}, {}, now
for i, log in ipairs(logs) do
  -- Entries are told apart by their time, so that no two share a place in the order; a clock that jumps back changes nothing.
  local at = math.max(now, log.last + 1)
  call('ZADD', log.at, text(at), id)
  call('HSET', log.use, id, text(input + output))
  moment = math.max(moment, at)
  log.last, log.tokens, log.count, log.open = at, log.tokens + input + output, log.count + 1, log.open + 1
  claim(log)
  save(log)
  names[i] = windows[i][1]
end
local frees = {}
for i, purse in ipairs(purses) do
  call('HINCRBY', purse_key(purse[1]), 'held', text(held))
  ids[i] = purse[1]
  frees[i] = rows[i].settled - rows[i].held - held
end
if #names > 0 or #ids > 0 then
  call('HSET', owner_key(owner), id, cmsgpack.pack({ moment, held, names, ids }))
end
return pack(ADMITTED, moment, output, held, pictures(), frees)
