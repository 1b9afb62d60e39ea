"""This is where each step of governing a call is measured alone: CPU, the least of many repeats, one and 32 calls at a time."""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio
import msgspec
import uvloop

from bench.box import fund, governed_command
from bench.results import Spread, Step
from bench.stores import Stores, started
from bench.target import KEY, Place
from qwenbox import config
from qwenbox.app.office import FIRST_KEY, Office, open_office
from qwenbox.clock import SystemClock
from qwenbox.gateway.admission import Admission, Admitted
from qwenbox.gateway.catalog import Model
from qwenbox.gateway.counters.base import Counters, CountersConfig, Used
from qwenbox.gateway.counters.members import Books, Setting
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.gateway.counters.scripts import SCRIPTS
from qwenbox.gateway.counters.shared import SharedCounters
from qwenbox.gateway.keys import NewKey
from qwenbox.gateway.limits import Tiers
from qwenbox.gateway.metering import Entry, Metering
from qwenbox.gateway.recent import Recent
from qwenbox.gateway.router import Answer
from qwenbox.server.asgi import new_id
from qwenbox.terms.call import Call
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, FinishReason, Started, TextDelta
from qwenbox.terms.secret import Secret
from qwenbox.terms.usage import Usage
from qwenbox.valkey.store import open_store

T = TypeVar("T")

_TEXT = "The quick brown fox jumps over the lazy dog and goes home."
_EVENTS: tuple[ChatEvent, ...] = (
    Started(input_tokens=24),
    TextDelta(text=_TEXT, tokens=14),
    ChoiceFinished(reason=FinishReason.STOP),
    Completed(usage=Usage(input_tokens=24, output_tokens=14)),
)
_INPUT_TOKENS = 60
_REQUEST = ChatRequest(
    model="qwen-turbo", messages=(Message(role=Role.USER, content=(TextPart(text="How are you?"),)),), max_output_tokens=64
)


_AT_ONCE = (1, 32)
_CALLS = 320


class Parts:
    """What a call meets on its way, without server and engine."""

    def __init__(self, office: Office, admission: Admission, settings: config.Config) -> None:
        self._office = office
        self._admission = admission
        self._metering = Metering(office.journal, admission, SystemClock(), lambda states: None)
        self._model = Model(entry=next(entry for entry in settings.model if entry.name == _REQUEST.model), deployments=())

    async def call(self) -> Call[ChatRequest]:
        caller = self._office.keys.verify(KEY)
        return Call(id=new_id(), caller=caller, request=_REQUEST, dialect="openai", arrived_at=time.time())

    async def check_key(self, call: Call[ChatRequest]) -> None:
        self._office.keys.verify(KEY)

    async def reserve(self, call: Call[ChatRequest]) -> None:
        """Windows, balance and budget: taken, and given back."""
        await self._admission.release(await self._admit(call), Used(tokens=0))

    async def admitted(self) -> Entry:
        call = await self.call()
        return self._metering.entry(call, await self._admit(call))

    async def meter(self, entry: Entry) -> None:
        """Its events watched, its row and entries written, its lease settled."""
        async for _ in entry.watch(_events(), Answer(deployment="up", events=_events())):
            pass

    async def _admit(self, call: Call[ChatRequest]) -> Admitted:
        return await self._admission.reserve(call, self._model, _REQUEST, _INPUT_TOKENS)


class Blocks(msgspec.Struct, frozen=True, kw_only=True):
    """How steps are timed: blocks of calls, as often as `repeats` says, beside these stores."""

    stores: Stores
    repeats: int

    async def step(self, name: str, at_once: int, prepare: Callable[[], Awaitable[T]], work: Callable[[T], Awaitable[None]]) -> Step:
        """prepare: what comes before the step, not counted."""
        costs: list[float] = []
        stores_costs: list[float] = []
        for _ in range(self.repeats):
            lanes = [[await prepare() for _ in range(_CALLS // at_once)] for _ in range(at_once)]
            before_s, stores_before_s = time.process_time(), self.stores.cpu_s()
            await asyncio.gather(*(_in_turn(work, lane) for lane in lanes))
            costs.append((time.process_time() - before_s) / _CALLS)
            stores_costs.append((self.stores.cpu_s() - stores_before_s) / _CALLS)
        stores_cpu_s = Spread.of(stores_costs) if self.stores.pids else None
        return Step(name=name, at_once=at_once, cpu_s=Spread.of(costs), stores_cpu_s=stores_cpu_s)


def measure(repeats: int, say: Callable[[str], None]) -> list[Step]:
    """Every step, over every kind of counters and books; each of 320 calls, `repeats` times."""
    steps: list[Step] = []
    for names in (frozenset[str](), frozenset({"postgres"}), frozenset({"valkey"})):
        say(f"steps: {', '.join(sorted(names)) or 'memory, SQLite'}")
        with tempfile.TemporaryDirectory(prefix="qwenbox-bench-") as folder, started(names, Path(folder)) as stores:
            place = Place(port=0, upstream=0, folder=Path(folder), stores=stores)
            settings = config.load(environment=governed_command(place).environment)
            steps += uvloop.run(_steps(settings, Blocks(stores=stores, repeats=repeats)))
    return steps


async def _steps(settings: config.Config, blocks: Blocks) -> list[Step]:
    account_id = await fund(settings)
    async with open_office(settings) as office, _open_counters(settings, office) as counters:
        await office.keys.issue(NewKey(account_id=account_id, name=FIRST_KEY, secret=Secret(KEY)))
        admission = Admission(counters, Tiers(settings.limits, settings.tier), office.prices, office.journal, SystemClock())
        parts = Parts(office, admission, settings)
        if blocks.stores.valkey_url:
            return [await blocks.step("reserve and settle, Valkey", n, parts.call, parts.reserve) for n in _AT_ONCE]
        if blocks.stores.postgres_url:
            return [await blocks.step("metering and commit, PostgreSQL", n, parts.admitted, parts.meter) for n in _AT_ONCE]
        return [
            await blocks.step("key", 1, parts.call, parts.check_key),
            await blocks.step("reserve and settle, memory", 1, parts.call, parts.reserve),
            *[await blocks.step("metering and commit, SQLite", n, parts.admitted, parts.meter) for n in _AT_ONCE],
        ]


@asynccontextmanager
async def _open_counters(settings: config.Config, office: Office) -> AsyncGenerator[Counters]:
    counting = CountersConfig(window_s=settings.limits.window_s, wait_s=settings.money.wait_s)
    if not settings.valkey.url.reveal():
        yield MemoryCounters(counting, SystemClock(), office.ledger.load)
        return
    async with open_store(settings.valkey, SCRIPTS) as store, anyio.create_task_group() as tasks:
        books = Books(load=office.ledger.load, settled=Recent(office.database).used)
        counters = SharedCounters(Setting(counters=counting, valkey=settings.valkey), store, SystemClock(), books)
        tasks.start_soon(counters.follow)
        yield counters
        tasks.cancel_scope.cancel()


async def _in_turn(work: Callable[[T], Awaitable[None]], lane: Sequence[T]) -> None:
    for one in lane:
        await work(one)


async def _events() -> AsyncIterator[ChatEvent]:
    for event in _EVENTS:
        yield event
