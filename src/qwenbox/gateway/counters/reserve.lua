-- One call's admission: windows and money in one step, all or nothing. The rules are those of window.py and money.py.
-- given: owner, id, shift, span, windows {id, requests, tokens, concurrency; -1 without limit}, purses {id, allowance},
--        {input, output, least, is_flexible 0/1, input_scaled, output_price, choices}, states {id, amount, version},
--        has_waited 0/1: whether it may stand in a line for money, mark (Ask.mark)
-- returns MessagePack: {code, …}, see the table of codes

local ADMITTED, REFUSED, BROKE, WAIT, UNKNOWN, WARMING, STRANGER = 0, 1, 2, 3, 4, 5, 6
local RATE, QUOTA = 0, 1
local UNIT = 1000000

local owner, id, shift, span, windows, purses, worst, states, has_waited, mark = unpack(given)
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
keep(states)

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

local function due(key, from, to)
  return call('ZRANGEBYSCORE', key, text(from), text(to), 'LIMIT', 0, 200)
end

local function mark_of(name)
  return tonumber(name:match('^%d+:%d+:(%d+)'))
end

local function promised_at(log, name)
  return tonumber(call('ZSCORE', log.promise, name))
end

-- The promise of whoever comes now, at its moment or as late as its client can wait; nil if this is a newcomer.
local function own(log)
  if log.promises == 0 then
    return nil
  end
  for _, name in ipairs(due(log.promise, 0, now)) do
    if mark == 0 or mark_of(name) == mark then
      return name
    end
  end
  local late, first, first_at = mark == 0 and IMPATIENT_GRACE or HOLD, nil, nil
  for _, name in ipairs(due(log.far, now - IMPATIENT - late, now - IMPATIENT)) do
    if mark_of(name) == mark then
      local at = promised_at(log, name)
      if mark == 0 then
        return name
      end
      if not first or at < first_at then
        first, first_at = name, at
      end
    end
  end
  return first
end

-- Requests and tokens that this caller must leave to others, who were promised them and are about to come.
local function kept(log, name)
  if log.promises == 0 or mark == 0 or (name and promised_at(log, name) <= now) then
    return 0, 0
  end
  local requests, tokens = 0, 0
  for _, other in ipairs(due(log.promise, now - HOLD, now + EARLY)) do
    if mark_of(other) ~= 0 then
      requests, tokens = requests + 1, tokens + tonumber(other:match('^%d+:(%d+)'))
    end
  end
  return requests, tokens
end

-- The promise of whoever comes now is over. Returns its moment.
local function claim(log, name)
  if name then
    local at = promised_at(log, name)
    end_promise(log, name)
    return at
  end
  if log.promises > 0 then
    local first = call('ZRANGE', log.promise, 0, 0, 'WITHSCORES')
    if now - tonumber(first[2]) > HOLD then
      end_promise(log, first[1]) -- somebody else has the place of one who is late
    end
  end
  return nil
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
local function move_mark(log, key, fields, tokens_of, excess)
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
    return move_mark(log, log.at, { 'mark', 'marked' }, entry_tokens, excess) + span
  end
  excess = excess - log.tokens
  if excess > log.promised then
    return now + span
  end
  return math.max(move_mark(log, log.promise, { 'promise_mark', 'promise_marked' }, promise_tokens, excess), now) + LATE + span
end

local function make_promise(log, requests, limit, at, tokens)
  local most = requests < 0 and MOST_PROMISES or MOST_LIMITS * requests
  if log.promises >= most or (limit >= 0 and log.promised + tokens > MOST_LIMITS * limit) then
    return
  end
  log.number = log.number + 1
  -- The number comes first, so that among equal moments the earlier promise does.
  local name = table.concat({ string.format('%016.0f', log.number), text(tokens), text(mark), text(now) }, ':')
  local ends_ms = math.ceil((at - now + GRACE) / 1000) + 1000
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
  log.own = own(log)
  log.kept_requests, log.kept_tokens = kept(log, log.own)
  local _, requests, tokens, concurrency = unpack(window)
  if (requests >= 0 and log.count + log.kept_requests >= requests) or (concurrency >= 0 and log.open >= concurrency) then
    is_refused = true
  end
  if tokens >= 0 then
    local left = tokens - log.tokens - log.kept_tokens - input
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
    local again_at = claim(log, log.own)
    again_at = again_at and again_at > now and again_at
    if requests >= 0 then
      later(again_at or requests_free_at(log, requests), log.count + log.kept_requests >= requests, RATE)
    end
    if tokens >= 0 then
      later(again_at or tokens_free_at(log, tokens), log.tokens + log.kept_tokens + input + least > tokens, QUOTA)
    end
    if concurrency >= 0 and log.open >= concurrency then
      later(now + math.min(span, math.ceil(log.mean * (log.promises + 1) / concurrency)), true, RATE)
    end
  end
  -- Windows that wait for each other, and calls of half a limit each, would add up to more than anybody waits.
  free_at = math.min(free_at, now + (MOST_LIMITS + 1) * (span + LATE)) + MARGIN
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
  local found = call('HMGET', purse_key(purse[1]), 'amount', 'held', 'waiting', 'edition')
  if found[4] ~= edition then
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
  claim(log, log.own)
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
