"""This is where several workers count without a shared store: each in its own memory, on its equal part of every limit and of all money.

Approximate, as `[limits] approximate = true` says: a worker that is asked more often than the others refuses before the whole is used,
and what another worker has spent is known only a second later. docs/limits.md, "Several workers".
"""

import msgspec

from qwenbox.gateway.counters.base import Ask, Lease, LiveWindow, Purse, PurseState, Used, Window
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.gateway.counters.money import Load


class ApartCounters:
    """place: 1 to count. inner: made with the `load` of `parted`."""

    def __init__(self, inner: MemoryCounters, place: int, count: int) -> None:
        self._inner = inner
        self._place = place
        self._count = count

    async def reserve(self, ask: Ask) -> Lease:
        """As `Counters.reserve`, on this worker's part."""
        own = msgspec.structs.replace(
            ask,
            windows=tuple(self._window(window) for window in ask.windows),
            purses=tuple(Purse(id=purse.id, allowance_micros=self._part(purse.allowance_micros)) for purse in ask.purses),
        )
        return await self._inner.reserve(own)

    async def settle(self, lease: Lease, used: Used) -> None:
        await self._inner.settle(lease, Used(tokens=used.tokens, purses=tuple(self._state(state) for state in used.purses)))

    def learn(self, states: tuple[PurseState, ...]) -> None:
        self._inner.learn(tuple(self._state(state) for state in states))

    def snapshot(self) -> tuple[LiveWindow, ...]:
        """Of this worker alone."""
        return self._inner.snapshot()

    def _window(self, window: Window) -> Window:
        def part(whole: int | None) -> int | None:
            return None if whole is None else self._part(whole)

        return Window(id=window.id, requests=part(window.requests), tokens=part(window.tokens), concurrency=part(window.concurrency))

    def _state(self, state: PurseState) -> PurseState:
        return msgspec.structs.replace(state, amount_micros=self._part(state.amount_micros))

    def _part(self, whole: int) -> int:
        return part(whole, self._place, self._count)


def part(whole: int, place: int, count: int) -> int:
    """The parts of all places, 1 to count, sum to the whole; also of a debt."""
    return whole // count + (1 if place <= whole % count else 0)


def parted(load: Load, place: int, count: int) -> Load:
    """`load`, for one of several workers."""

    async def load_part(ids: tuple[str, ...]) -> tuple[PurseState, ...]:
        states = await load(ids)
        return tuple(msgspec.structs.replace(state, amount_micros=part(state.amount_micros, place, count)) for state in states)

    return load_part
