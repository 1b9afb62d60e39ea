"""This is where engines are opened, and what they share: the way to model servers, weights, memory, vocabularies."""

from collections.abc import Mapping
from contextlib import AsyncExitStack

import msgspec

from qwenbox.clock import Clock
from qwenbox.config import Config, ConfigError
from qwenbox.engines.faults import faulty
from qwenbox.engines.memory import MemoryBudget
from qwenbox.engines.registry import EngineParts, open_engine, opened_in_order
from qwenbox.engines.tokenizer import Vocabularies
from qwenbox.remote import Remote
from qwenbox.tape import TapeRemote
from qwenbox.terms.engine import TextEngine
from qwenbox.weights.store import WeightsStore
from qwenbox.workers.seat import Seat
from qwenbox.workers.turns import LinkedLanes


class Engines(msgspec.Struct, frozen=True, kw_only=True):
    """by_name: of their `[engine.NAME]` tables. store: of the weights they run."""

    by_name: dict[str, TextEngine]
    store: WeightsStore


async def open_engines(stack: AsyncExitStack, config: Config, clock: Clock, seat: Seat | None = None) -> Engines:
    """Every `[[engine]]` by its name, one around another after it. seat: in a worker, whose parent has their child processes."""
    remote = await stack.enter_async_context(_remote(config, clock))
    store = await stack.enter_async_context(WeightsStore(config.home, config.weights, config.store))
    parts = EngineParts(
        remote=remote, store=store, memory=MemoryBudget(config.memory.bytes_allowed), vocabularies=Vocabularies(), clock=clock
    )
    engines: dict[str, TextEngine] = {}
    for name, engine in opened_in_order(config.engine):
        own = msgspec.structs.replace(parts, engines=engines, lanes=LinkedLanes(seat.link, name) if seat else None)
        engines[name] = await stack.enter_async_context(open_engine(engine, own))
    return Engines(by_name=engines, store=store)


def provoked(config: Config, engines: Mapping[str, TextEngine]) -> Mapping[str, TextEngine]:
    """The engines; behind what provokes their failures, where the box is to."""
    if not (config.provokes or config.faults.share):
        return engines
    return {name: faulty(engine, config.faults) for name, engine in engines.items()}


def _remote(config: Config, clock: Clock) -> Remote:
    """The way to model servers; past a tape, where there is one."""
    if not config.tape.file:
        return Remote()
    try:
        return TapeRemote(config.tape, config.home / config.tape.file, clock)
    except ValueError as error:
        raise ConfigError(str(error)) from error
