"""This is where kept answers lie in Valkey, so that workers and nodes share them. All keys share one hash tag.

Without the store there are no hits and nothing is kept; calls go on. Values, when each was used and stored, and its owner and size are
kept apart, so that choosing whom to forget reads no answer.
"""

import logging

import anyio
import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway.cache.base import Item, ShelfState
from qwenbox.gateway.cache.config import CacheConfig
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.valkey.resp import Reply, ReplyError
from qwenbox.valkey.store import Script, Store, StoreDown, StoreRefused

# KEYS of all scripts: 1 values, 2 used at, 3 stored at, 4 size, account and model, 5 bytes in all.
_DROP = """
local function drop(name)
  local about = redis.call('HGET', KEYS[4], name)
  if not about then return end
  redis.call('INCRBY', KEYS[5], -cmsgpack.unpack(about)[1])
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  redis.call('HDEL', KEYS[4], name)
end
"""

# ARGV: name, now.
_FIND = Script("""
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value then redis.call('ZADD', KEYS[2], 'XX', ARGV[2], ARGV[1]) end
return value
""")

# ARGV: now, name.
_TOUCH = Script("return redis.call('ZADD', KEYS[2], 'XX', ARGV[1], ARGV[2])")

# ARGV: name, value, stored at, size, account, model, most bytes, too old before.
_KEEP = Script(
    _DROP
    + """
drop(ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
redis.call('HSET', KEYS[4], ARGV[1], cmsgpack.pack({tonumber(ARGV[4]), ARGV[5], ARGV[6]}))
local bytes = redis.call('INCRBY', KEYS[5], ARGV[4])
for _, name in ipairs(redis.call('ZRANGE', KEYS[3], '-inf', ARGV[8], 'BYSCORE', 'LIMIT', 0, 100)) do drop(name) end
bytes = tonumber(redis.call('GET', KEYS[5]))
while bytes > tonumber(ARGV[7]) do
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if not oldest then break end
  drop(oldest)
  bytes = tonumber(redis.call('GET', KEYS[5]))
end
return 1
"""
)

# ARGV: account, model; "" for all.
_PURGE = Script(
    _DROP
    + """
local count = 0
local all = redis.call('HGETALL', KEYS[4])
for place = 1, #all, 2 do
  local about = cmsgpack.unpack(all[place + 1])
  if (ARGV[1] == '' or ARGV[1] == about[2]) and (ARGV[2] == '' or ARGV[2] == about[3]) then
    drop(all[place])
    count = count + 1
  end
end
return count
"""
)

_STATE = Script("""
local oldest = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
return {redis.call('HLEN', KEYS[1]), tonumber(redis.call('GET', KEYS[5]) or '0'), oldest[2] or ''}
""")

SCRIPTS = (_FIND, _TOUCH, _KEEP, _PURGE, _STATE)

_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Item)


class ValkeyShelf:
    """See base.Shelf. store: with SCRIPTS; whoever opens it keeps it connected, but for a process that only purges or tells the state."""

    def __init__(self, store: Store, prefix: str, config: CacheConfig, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._clock = clock
        self._keys = [f"{{{prefix}:cache}}:{name}".encode() for name in ("values", "used", "stored", "about", "bytes")]

    @property
    def name(self) -> str:
        return "valkey"

    async def find(self, key: str) -> Item | None:
        try:
            reply = await self._store.call_script(_FIND, self._keys, (key.encode(), _number(self._clock.now())))
        except (StoreDown, ReplyError):
            return None
        if not isinstance(reply, bytes):
            return None
        try:
            return _decoder.decode(reply)
        except msgspec.DecodeError:
            return None  # written by another version of ours

    def touch(self, key: str) -> None:
        words = (_number(self._clock.now()), key.encode())
        self._store.post_script(_TOUCH, self._keys, words, _lost)

    def keep(self, item: Item) -> None:
        words = (
            item.key.encode(),
            _encode(item),
            _number(item.stored_at),
            b"%d" % item.size_bytes,
            item.account_id.encode(),
            item.model.encode("utf-8", "surrogatepass"),
            b"%d" % self._config.max_bytes,
            _number(item.stored_at - self._config.ttl_s),
        )
        self._store.post_script(_KEEP, self._keys, words, _lost)

    async def purge(self, account_id: str | None, model: str | None) -> int:
        words = ((account_id or "").encode(), (model or "").encode("utf-8", "surrogatepass"))
        reply = await self._ask(_PURGE, words)
        return reply if isinstance(reply, int) else 0

    async def state(self) -> ShelfState:
        reply = await self._ask(_STATE, ())
        match reply:
            case [int(entries), int(size), bytes(oldest)]:
                return ShelfState(entries=entries, bytes=size, oldest_at=float(oldest) if oldest else None)
            case _:
                raise _away()

    async def follow(self) -> None:
        await anyio.sleep_forever()

    async def _ask(self, script: Script, words: tuple[bytes, ...]) -> Reply:
        try:
            if not self._store.connections:
                await self._store.connect()
            return await self._store.call_script(script, self._keys, words)
        except (StoreDown, StoreRefused, ReplyError) as error:
            raise _away() from error


def _away() -> ApiError:
    return ApiError(ErrorKind.OVERLOADED, "The shared store ([valkey] url), which keeps the answers, does not answer.", retry_after_s=1)


def _lost() -> None:
    _log.debug("an answer was not kept: the shared store is away")


def _number(value: float) -> bytes:
    return repr(value).encode()
