"""This is where administration gets at what runs below the models: files of weights, engines that can be loaded, their speed."""

from contextlib import AsyncExitStack
from functools import partial

import msgspec

from qwenbox.app.counting import AnyCounters
from qwenbox.app.engines import Engines
from qwenbox.app.office import Office
from qwenbox.app.settings import effective
from qwenbox.app.watching import counted
from qwenbox.config import Config
from qwenbox.engines.llamacpp.config import LlamaCppConfig
from qwenbox.engines.registry import around
from qwenbox.gateway.counters.shared import SharedCounters
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.settings import Settings
from qwenbox.gateway.speed import Speeds
from qwenbox.server.admin.machine import About, Machine
from qwenbox.telemetry.metrics import Metrics
from qwenbox.terms.engine import Unloadable
from qwenbox.weights.pulls import Pulls
from qwenbox.workers.seat import Seat


class Beneath(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is told of. metrics: of this process."""

    config: Config
    office: Office
    engines: Engines
    gateway: Gateway
    counters: AnyCounters
    metrics: Metrics
    seat: Seat | None


async def open_machine(stack: AsyncExitStack, beneath: Beneath) -> Machine:
    """For the admin API of a running box; pulls that it starts end with `stack`."""
    config, office, engines, gateway, seat = beneath.config, beneath.office, beneath.engines, beneath.gateway, beneath.seat
    inner = {name: name for name in config.engine} | around(config.engine)
    own = {name: engine for name, engine in engines.by_name.items() if isinstance(engine, Unloadable)}
    return Machine(
        about=About(
            home=config.home,
            profile=config.profile,
            workers=seat.count if seat else 1,
            started_at=seat.link.started_at if seat else office.clock.now(),
            memory_limit_bytes=config.memory.bytes_allowed,
            margin_bytes=config.store.free_space_margin_bytes,
        ),
        store=engines.store,
        pulls=await stack.enter_async_context(Pulls(engines.store, office.clock.now)),
        files={name: _files(config, own_name) for name, own_name in inner.items()},
        loadable={name: own[own_name] for name, own_name in inner.items() if own_name in own},
        speeds=Speeds(gateway.catalog, gateway.router, Settings(office.database), office.clock),
        database=office.database,
        counted=partial(counted, beneath.metrics, seat),
        valkey=partial(_valkey, beneath.counters),
        settings=partial(effective, config),
    )


def _valkey(counters: AnyCounters) -> str:
    return "off" if not isinstance(counters, SharedCounters) else "up" if counters.is_up else "down"


def _files(config: Config, engine: str) -> tuple[str, ...]:
    """Names of the weights that `[engine.NAME]` loads here, with what makes them see."""
    found = config.engine[engine]
    if not isinstance(found, LlamaCppConfig):
        return ()
    projector = config.weights[found.weights].projector
    return (found.weights, projector) if projector else (found.weights,)
