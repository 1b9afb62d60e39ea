"""Several processes that ask for as much as they can get, and what they were given."""

import multiprocessing
import random
import time
from collections.abc import Sequence
from typing import NamedTuple
from uuid import uuid4

import anyio
import msgspec

from qwenbox.gateway.counters.base import Counters, Used, Window
from qwenbox.gateway.counters.members import Setting
from qwenbox.terms.errors import ApiError
from support.asks import ask
from support.shared_counters import SkewedClock, node

MICROS = 1_000_000


class Given(NamedTuple):
    """at_us: when, by the counters' clock. tokens: what the call used."""

    at_us: int
    tokens: int


class Load(NamedTuple):
    """seconds_s: how long to ask. clients: at once, in each process. call_s: how long a call takes.

    ramp_s: how long it takes until all clients are there. used: 1 ÷ this of what was reserved is used.
    """

    window: Window
    tokens: tuple[int, int]
    seconds_s: float
    clients: int = 16
    call_s: float = 0.1
    ramp_s: float = 0.0
    used: int = 1


async def hammer(counters: Counters, load: Load, given: list[Given]) -> None:
    ends_at = time.monotonic() + load.seconds_s

    async def client() -> None:
        # Not all at once: what comes in one moment also leaves the window in one, faster than clients that are busy can take its place.
        await anyio.sleep(load.ramp_s * random.random())
        while time.monotonic() < ends_at:
            try:
                lease = await counters.reserve(msgspec.structs.replace(ask(load.window, tokens=load.tokens), id=uuid4().hex))
            except ApiError as error:
                # Sooner than told, so that nothing is lost between the moment and its client; and not so often that the machine is full.
                await anyio.sleep(min(0.02, error.retry_after_s or 0.02) * random.uniform(0.5, 1.5))
                continue
            tokens = sum(load.tokens) // load.used
            given.append(Given(round(lease.at * MICROS), tokens))
            await anyio.sleep(load.call_s * random.uniform(0.5, 1.5))
            await counters.settle(lease, Used(tokens=tokens))

    async with anyio.create_task_group() as tasks:
        for _ in range(load.clients):
            tasks.start_soon(client)


def _process(setting: Setting, load: Load, skew_s: float, start: object, out: object) -> None:
    async def run() -> list[Given]:
        given: list[Given] = []
        async with node(setting, clock=SkewedClock(skew_s)) as one:
            await one.store.wait_up()
            await anyio.to_thread.run_sync(start.wait)  # type: ignore[attr-defined]
            await hammer(one.counters, load, given)
        return given

    out.put([tuple(it) for it in anyio.run(run)])  # type: ignore[attr-defined]


def by_processes(setting: Setting, load: Load, skews_s: Sequence[float]) -> list[Given]:
    """One process for each skew of its clock, all asking at once. What they were given, in order of time."""
    context = multiprocessing.get_context("spawn")
    start, out = context.Barrier(len(skews_s)), context.Queue()
    processes = [context.Process(target=_process, args=(setting, load, skew_s, start, out)) for skew_s in skews_s]
    for process in processes:
        process.start()
    found = [Given(*it) for _ in processes for it in out.get(timeout=load.seconds_s + 60)]
    for process in processes:
        process.join(10)
    return sorted(found)


class Fill(NamedTuple):
    """The fullest and the emptiest of all windows that lie within a run, as shares of the limit."""

    most: float
    least: float


def fill(given: Sequence[Given], window_s: float, limit: int, *, of_tokens: bool) -> Fill:
    """Looks at every window that begins or ends with an admission, aligned or not."""
    span_us = round(window_s * MICROS)
    most, least, total, first = 0, None, 0, 0
    end_us = given[0].at_us + span_us
    for it in given:
        # What lies in (it - span, it], before and with `it`: a window that ends just before it is the emptiest there can be.
        while given[first].at_us <= it.at_us - span_us - 1:
            total -= given[first].tokens if of_tokens else 1
            first += 1
        if it.at_us > end_us:
            least = total if least is None else min(least, total)
        total += it.tokens if of_tokens else 1
        most = max(most, total)
    return Fill(most / limit, (least or 0) / limit)
