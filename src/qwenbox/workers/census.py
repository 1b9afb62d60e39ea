"""This is where the parent adds up what all processes of a box counted, when somebody asks."""

import itertools
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio
import msgspec

from qwenbox.telemetry.names import FAMILIES, GAUGE
from qwenbox.telemetry.snapshot import Snapshot, add, lasting, pack, unpack
from qwenbox.workers.link import Count, Counted, FromWorker, Wire

_LOG = logging.getLogger("qwenbox.workers")

# A worker that is too busy to say what it counted is taken as it was when it last did.
_WAIT_S = 2.0

_GAUGES = frozenset(family.name for family in FAMILIES.values() if family.kind == GAUGE)


class Census:
    """own: what this process counted. What a worker that died had told stays in the sum, so that no counter of the box runs backwards."""

    def __init__(self, own: Callable[[], Snapshot]) -> None:
        self._own = own
        self._told: dict[Wire[FromWorker], Snapshot] = {}
        self._gone = Snapshot()
        self._ids = itertools.count(1)
        self._awaited: dict[int, tuple[set[Wire[FromWorker]], anyio.Event]] = {}

    @contextmanager
    def member(self, wire: Wire[FromWorker]) -> Generator[None]:
        """A worker, for as long as it lives."""
        self._told[wire] = Snapshot()
        try:
            yield
        finally:
            self._gone = add((self._gone, lasting(self._told.pop(wire), _GAUGES)))
            for id in list(self._awaited):
                self._drop(id, wire)

    def heard(self, wire: Wire[FromWorker], message: Counted) -> None:
        try:
            self._told[wire] = unpack(message.snapshot)
        except msgspec.DecodeError as error:
            _LOG.error("a worker's metrics cannot be read: %s", error)
        self._drop(message.id, wire)

    async def gather(self) -> bytes:
        """The sum over all processes, packed."""
        id, all_told = next(self._ids), anyio.Event()
        self._awaited[id] = (set(self._told), all_told)
        try:
            for wire in self._told:
                wire.send(Count(id=id))
            with anyio.move_on_after(_WAIT_S):
                await all_told.wait()
        finally:
            del self._awaited[id]
        return pack(add((self._own(), self._gone, *self._told.values())))

    def _drop(self, id: int, wire: Wire[FromWorker]) -> None:
        if id in self._awaited:
            missing, all_told = self._awaited[id]
            missing.discard(wire)
            if not missing:
                all_told.set()
