"""This is where the counters of limits and money are opened, in memory or in Valkey, with what earlier calls still use of them."""

from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TypeAlias

from qwenbox.app.office import Office
from qwenbox.config import Config, ConfigError
from qwenbox.gateway.counters.apart import ApartCounters, parted
from qwenbox.gateway.counters.base import CountersConfig, LiveWindow
from qwenbox.gateway.counters.members import Books, Past, Setting
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.gateway.counters.scripts import SCRIPTS
from qwenbox.gateway.counters.shared import SharedCounters
from qwenbox.gateway.limits import Tiers
from qwenbox.gateway.recent import Recent
from qwenbox.terms.errors import ApiError
from qwenbox.valkey.store import StoreRefused, open_store
from qwenbox.workers.seat import Seat

AnyCounters: TypeAlias = MemoryCounters | ApartCounters | SharedCounters


async def open_counters(stack: AsyncExitStack, config: Config, office: Office, seat: Seat | None) -> AnyCounters:
    """In memory, with what the calls of the last window used; or in Valkey, which remembers by itself."""
    counting = CountersConfig(window_s=config.limits.window_s, wait_s=config.money.wait_s)
    if not config.valkey.url.reveal():
        return await _in_memory(counting, config, office, seat)
    try:
        store = await stack.enter_async_context(open_store(config.valkey, SCRIPTS))
    except StoreRefused as error:
        raise ConfigError(f"The shared store of [valkey] url refuses us: {error}") from error
    books = Books(load=office.ledger.load, settled=Recent(office.database).used, recent=partial(_recent, config, office))
    return SharedCounters(Setting(counters=counting, valkey=config.valkey), store, office.clock, books)


async def _in_memory(counting: CountersConfig, config: Config, office: Office, seat: Seat | None) -> MemoryCounters | ApartCounters:
    load = parted(office.ledger.load, seat.index, seat.count) if seat else office.ledger.load
    counters = MemoryCounters(counting, office.clock, load)
    if seat is not None:
        return ApartCounters(counters, seat.index, seat.count)
    for call in await _recent(config, office, office.clock.now() - counting.window_s):
        for window_id in call.windows:
            counters.restore(window_id, call.at, call.tokens)
    return counters


async def _recent(config: Config, office: Office, since: float) -> list[Past]:
    """Calls that still count in their windows: a restart, of the box or of the store, does not open new ones."""
    tiers = Tiers(config.limits, config.tier)
    found: list[Past] = []
    for call in await Recent(office.database).since(since):
        with suppress(ApiError):  # of a key that is no longer valid
            windows = tiers.windows(office.keys.caller(call.key_id), call.model)
            found.append(Past(call.id, call.admitted_at, call.tokens, tuple(window.id for window in windows)))
    return found


async def windows_of(counters: AnyCounters) -> tuple[LiveWindow, ...]:
    """What the counters hold now."""
    return await counters.snapshot() if isinstance(counters, SharedCounters) else counters.snapshot()
