"""This is where what several workers share is put together: an up-to-date database, the engines' children, their queues."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec

from qwenbox.app.administration import sign_in
from qwenbox.app.catalog import catalog_over
from qwenbox.app.console import Console, first_way_in
from qwenbox.app.engines import open_engines
from qwenbox.app.office import make_first_key, open_office
from qwenbox.app.watching import process_metrics, watch_queues
from qwenbox.clock import SystemClock
from qwenbox.config import Config, encode
from qwenbox.engines.llamacpp.engine import LlamaCpp
from qwenbox.engines.llamacpp.vectors import LlamaVectors
from qwenbox.gateway.catalog import Catalog
from qwenbox.gateway.scheduler import Pools
from qwenbox.server.admin.guard import admin_key
from qwenbox.terms.secret import Secret
from qwenbox.workers.census import Census
from qwenbox.workers.fork import Forked
from qwenbox.workers.parent import Crew, CrewPlan, WorkerCommand
from qwenbox.workers.turns import Shared


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """A box of several workers, seen from the process that starts them; first_key, console: as in `Box`. crew: runs them."""

    catalog: Catalog
    first_key: Secret | None
    console: str | None
    crew: Crew


@asynccontextmanager
async def open_parent(config: Config, command: WorkerCommand, forked: Sequence[Forked] = ()) -> AsyncGenerator[Parent]:
    """Several workers, and what they share: a database that is up to date, the engines' children and their queues.

    command: see CrewPlan. forked: the first workers, where they were forked off already.
    """
    clock = SystemClock(config.testing.skew_s)
    async with AsyncExitStack() as stack:
        async with open_office(config, clock) as office:
            first_key = await make_first_key(office, config.api_key)
            key = admin_key(config.admin, config.home)
            way_in = await first_way_in(config, key, sign_in(config, office, key))
        engines = (await open_engines(stack, config, clock)).by_name
        catalog = catalog_over(engines, config)
        metrics = process_metrics("parent", catalog, engines)
        pools = Pools(config.scheduler, clock)
        watch_queues(metrics, pools)
        plan = CrewPlan(count=config.server.workers, command=command, config=encode(config), drain_s=config.server.drain_s)
        lanes = {name: engine for name, engine in engines.items() if isinstance(engine, LlamaCpp | LlamaVectors)}
        console = await stack.enter_async_context(Console(config, key, clock))
        shared = Shared(turns=pools, lanes=lanes, census=Census(metrics.snapshot), console=console.port)
        yield Parent(catalog=catalog, first_key=first_key, console=way_in, crew=Crew(plan, shared, forked))
