"""This is where the stores of a box with everything on are started: PostgreSQL and Valkey, on the load's core, empty at each start."""

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path

import msgspec
from tests.support import postgres, valkey

from bench.process import cpu_s


class Stores(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses, "" for a store that is not used."""

    postgres_url: str = ""
    valkey_url: str = ""
    pids: tuple[int, ...] = ()

    def cpu_s(self) -> float:
        return sum(cpu_s(pid) for pid in self.pids)


@contextlib.contextmanager
def started(names: frozenset[str], folder: Path) -> Generator[Stores]:
    """names: of "postgres" and "valkey". PostgreSQL keeps its promise of durability (fsync)."""
    with contextlib.ExitStack() as stack:
        opened = Stores()
        for name in sorted(names):
            opened = _OPEN[name](opened, stack, folder)
        yield opened


def _postgres(stores: Stores, stack: contextlib.ExitStack, folder: Path) -> Stores:
    server = stack.enter_context(postgres.serve(is_safe=True))
    return msgspec.structs.replace(stores, postgres_url=server.new_database(), pids=(*stores.pids, server.pid))


def _valkey(stores: Stores, stack: contextlib.ExitStack, folder: Path) -> Stores:
    server = stack.enter_context(valkey.serve(folder / "valkey"))
    return msgspec.structs.replace(stores, valkey_url=server.url, pids=(*stores.pids, server.pid))


_OPEN: dict[str, Callable[[Stores, contextlib.ExitStack, Path], Stores]] = {"postgres": _postgres, "valkey": _valkey}
