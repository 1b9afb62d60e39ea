-- What every script of the counters begins with. KEYS[1]: the prefix of all keys, with its hash tag. ARGV[1]: MessagePack.
-- Times are whole microseconds of the store's clock; `shift` moves windows (a test clock), never owners and their heartbeats.

-- As in window.py and promises.py.
local MARGIN, LATE, GRACE, IMPATIENT, IMPATIENT_GRACE = 1000, 50000, 2000000, 8000000, 100000
local EARLY, HOLD = 100000, 250000
local FIRST_MEAN, LATEST_SHARE = 1000000, 0.125
local MOST_LIMITS, MOST_PROMISES = 4, 1000

local DAY_MS = 86400000

local base = KEYS[1]
local call = redis.call
local given = cmsgpack.unpack(ARGV[1])
local clock = call('TIME')
local real = clock[1] * 1000000 + clock[2]

local function text(number)
  return string.format('%.0f', number + 0) -- + 0: no "-0"
end

local function whole_part(number, of)
  return (number - number % of) / of
end

local state = call('HMGET', base .. 'state', 'generation', 'warm_until', 'edition')
local generation = state[1]
local warm_until = tonumber(state[2] or '0')
local edition = state[3] or '0'

-- Open calls of an owner; one that is gone is told by its name and the generation it lived in.
local function calls_key(gone)
  return base .. 'calls:' .. gone
end

local function owner_key(owner)
  return calls_key(generation .. ':' .. owner)
end

local function purse_key(id)
  return base .. 'purse:' .. generation .. ':' .. id
end

-- A purse is known while it is of the present edition. Whoever joins or is given up may have been away for a while, and what was
-- billed meanwhile by processes that died nobody tells; so then a new edition begins, and purses are read from the database again.
local function is_known(id)
  return call('HGET', purse_key(id), 'edition') == edition
end

-- News of purses: {id, amount, version} each; the newest is kept. It may be older than what nobody told, so it makes no purse known; and it
-- may be newer than what somebody is just reading.
local function learn(states)
  for _, it in ipairs(states) do
    local key = purse_key(it[1])
    local known = call('HGET', key, 'version')
    if not known or it[3] > tonumber(known) then
      call('HSET', key, 'amount', text(it[2]), 'version', text(it[3]))
      call('PEXPIRE', key, DAY_MS)
    end
  end
end

-- Purses that were just read from the database.
local function keep(states)
  learn(states)
  for _, it in ipairs(states) do
    call('HSET', purse_key(it[1]), 'edition', edition)
  end
end

local function begin_edition()
  edition = text(call('HINCRBY', base .. 'state', 'edition', 1))
end

-- Who waits for a purse's money stands in its line, {owner:call} by arrival; the purse itself knows how many they are.
local function line_key(id)
  return purse_key(id) .. ':line'
end

local function count_line(id)
  call('HSET', purse_key(id), 'waiting', call('ZCARD', line_key(id)))
end

local function leave_line(id, who)
  if call('ZREM', line_key(id), who) == 1 then
    count_line(id)
  end
end

-- One sliding window. Its entries are a sorted set by time with their tokens in a hash; its promises a sorted set of
-- {number:tokens:mark:refused at} by the moment promised, and those that lie far ahead another by the moment of the refusal.
-- mark, marked: how many of the oldest entries (promises) somebody waits for, and their tokens; so nothing is summed twice.
-- What changes together is one packed text, which is far cheaper than a hash.
local FIELDS = {
  'generation', 'tokens', 'open', 'mean', 'last', 'number', 'kept_until',
  'promises', 'promised', 'mark', 'marked', 'promise_mark', 'promise_marked',
}

local function entry_tokens(log, names)
  local each = call('HMGET', log.use, unpack(names))
  for i, value in ipairs(each) do
    each[i] = tonumber(value or '0')
  end
  return each
end

local function promise_tokens(_, names)
  local each = {}
  for i, name in ipairs(names) do
    each[i] = tonumber(name:match('^%d+:(%d+)'))
  end
  return each
end

local function sum_of(each)
  local sum = 0
  for _, value in ipairs(each) do
    sum = sum + value
  end
  return sum
end

local function open_log(id, now, span)
  local key = base .. 'window:' .. id
  local log = { key = key, at = key .. ':at', use = key .. ':use', promise = key .. ':promise', far = key .. ':far', span = span, now = now }
  local packed = call('GET', key)
  local found = packed and cmsgpack.unpack(packed) or { generation, 0, 0, FIRST_MEAN, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
  for i, field in ipairs(FIELDS) do
    log[field] = found[i]
  end
  if log.generation ~= generation then
    log.generation, log.open = generation, 0
  end
  return log
end

-- A promise is over: kept, lapsed, or said anew.
local function end_promise(log, name)
  local tokens = promise_tokens(log, { name })[1]
  local rank = log.promise_mark > 0 and call('ZRANK', log.promise, name)
  if rank and rank < log.promise_mark then
    log.promise_mark, log.promise_marked = log.promise_mark - 1, log.promise_marked - tokens
  end
  call('ZREM', log.promise, name)
  call('ZREM', log.far, name)
  log.promises, log.promised = log.promises - 1, log.promised - tokens
end

-- Forget what no longer counts; an entry counts up to and including its window's last moment.
local function expire(log)
  local oldest = '(' .. text(log.now - log.span)
  repeat
    local gone = call('ZRANGEBYSCORE', log.at, '-inf', oldest, 'LIMIT', 0, 500)
    if #gone > 0 then
      local sum = sum_of(entry_tokens(log, gone))
      call('HDEL', log.use, unpack(gone))
      call('ZREMRANGEBYRANK', log.at, 0, #gone - 1)
      log.tokens = log.tokens - sum
      if log.mark <= #gone then
        log.mark, log.marked = 0, 0
      else
        log.mark, log.marked = log.mark - #gone, log.marked - sum
      end
    end
  until #gone < 500
  log.count = call('ZCARD', log.at)
  if log.count == 0 then
    log.tokens, log.mark, log.marked = 0, 0, 0
  end
  if log.promises > 0 then
    for _, name in ipairs(call('ZRANGEBYSCORE', log.promise, '-inf', '(' .. text(log.now - GRACE))) do
      end_promise(log, name)
    end
    if call('EXISTS', log.promise) == 0 then
      log.promises, log.promised, log.promise_mark, log.promise_marked = 0, 0, 0, 0
    end
  end
end

-- Keys without use vanish by themselves. The time that entries have to live is set now and then, not for every call.
local function save(log)
  local span_ms, values = math.ceil(log.span / 1000) + 1000, {}
  if log.kept_until < real or log.count == 1 then
    log.kept_until = real + log.span
    call('PEXPIRE', log.at, 2 * span_ms)
    call('PEXPIRE', log.use, 2 * span_ms)
  end
  for i, field in ipairs(FIELDS) do
    values[i] = log[field]
  end
  -- It has the count of open calls, which may be long.
  call('SET', log.key, cmsgpack.pack(values), 'PX', math.max(DAY_MS, 3 * span_ms))
end

-- Correct an entry to what was used; tokens below 0 undo it.
local function correct(log, name, tokens)
  local known = call('HGET', log.use, name)
  if not known then
    return
  end
  local difference = math.max(tokens, 0) - tonumber(known)
  local rank = log.mark > 0 and call('ZRANK', log.at, name)
  if rank and rank < log.mark then
    log.marked = log.marked + difference
    if tokens < 0 then
      log.mark = log.mark - 1
    end
  end
  log.tokens = log.tokens + difference
  if tokens < 0 then
    call('HDEL', log.use, name)
    call('ZREM', log.at, name)
  else
    call('HSET', log.use, name, text(tokens))
  end
end

-- How a window looks: requests and tokens that count, calls open, microseconds until it is as good as empty.
local function picture(log)
  return { log.count, log.tokens, log.open, log.count > 0 and math.max(0, log.last + log.span - log.now) or 0 }
end
