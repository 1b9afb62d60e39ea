"""This is where a box is put together: Config in, running box out."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import msgspec

from qwenbox.app.administration import admin_api, sign_in
from qwenbox.app.cache import open_cache
from qwenbox.app.catalog import catalog_over
from qwenbox.app.console import Entrance, console_port, first_way_in
from qwenbox.app.counting import open_counters, windows_of
from qwenbox.app.desks import build_desks
from qwenbox.app.engines import open_engines, provoked
from qwenbox.app.gateway import build_gateway
from qwenbox.app.machine import Beneath, open_machine
from qwenbox.app.office import make_first_key, open_office
from qwenbox.app.parts import build_parts
from qwenbox.app.watching import exchange_watch, metrics_page, process_metrics, process_name, watch_calls, watch_queues
from qwenbox.app.work import batch_worker, follow, followers, sweepers, task_worker
from qwenbox.clock import Clock
from qwenbox.config import Config
from qwenbox.dialects.registry import DIALECTS
from qwenbox.gateway.catalog import Catalog
from qwenbox.gateway.limits import Tiers
from qwenbox.gateway.prices import record
from qwenbox.gateway.scheduler import Pools, Turns
from qwenbox.media.download import Downloads
from qwenbox.media.media import Media
from qwenbox.server.admin.guard import admin_key
from qwenbox.server.admin.parts import Live
from qwenbox.server.asgi import build
from qwenbox.server.console_door import ConsoleDoor
from qwenbox.server.exchange import Receive, Scope, Send
from qwenbox.server.probes import Probes
from qwenbox.telemetry.metrics import Metrics
from qwenbox.terms.secret import Secret
from qwenbox.workers.seat import Seat
from qwenbox.workers.turns import LinkedTurns


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """A running box. first_key: the key made at this start, shown once; None when there were keys already.

    console: the path into the console, for who has started the box; None where it is closed, and in a worker. stop_answers: what still
    runs ends now, with an error that says so.
    """

    application: Callable[[Scope, Receive, Send], Awaitable[None]]
    catalog: Catalog
    first_key: Secret | None
    console: str | None
    stop_answers: Callable[[], None]


@asynccontextmanager
async def open_box(config: Config, clock: Clock | None = None, seat: Seat | None = None) -> AsyncGenerator[Box]:
    """Everything, opened in dependency order and closed in reverse. seat: in one of several workers, whose parent has the engines."""
    async with AsyncExitStack() as stack:
        office = await stack.enter_async_context(open_office(config, clock))
        first_key = await make_first_key(office, config.api_key, may_draw=seat is None)
        await record(office.database, office.prices)

        engines = await open_engines(stack, config, office.clock, seat)
        catalog = catalog_over(provoked(config, engines.by_name), config)
        metrics = process_metrics(process_name(seat), catalog, engines.by_name)

        counters = await open_counters(stack, config, office, seat)
        gateway = build_gateway(config, office, catalog, counters, _turns(config, office.clock, metrics, seat))
        watch_calls(metrics, gateway)
        cache = await open_cache(stack, config, office)
        gateway.remember(cache)

        parts = await build_parts(config, office, gateway)
        gateway.see(Media(config.media, Downloads(config.media), parts.uploads))
        beneath = Beneath(config=config, office=office, engines=engines, gateway=gateway, counters=counters, metrics=metrics, seat=seat)
        machine = await open_machine(stack, beneath)
        tiers, windows = Tiers(config.limits, config.tier), partial(windows_of, counters)
        live = Live(catalog=catalog, windows=windows, machine=machine, tiers=tiers, batches=parts.batches)
        key = admin_key(config.admin, config.home)
        admin = admin_api(config, office, key, live, cache)
        way_in = None if seat else await first_way_in(config, key, sign_in(config, office, key))
        console = Entrance(config, key, sign_in(config, office, key), await console_port(stack, config, key, office.clock, seat))
        desks = build_desks(parts, admin, office.statements, ConsoleDoor(console.find, config.console.public_url))

        work = [batch_worker(config, office, parts, metrics, seat).follow, task_worker(config, office, parts, seat).follow]
        await follow(stack, [*followers(office, gateway, cache, counters), *work, *sweepers(config, office, parts, seat)])

        probes = Probes(catalog, DIALECTS, metrics_page(config, metrics, admin.guard, seat))
        application = build(parts, DIALECTS, probes, desks, exchange_watch(stack, config, metrics, seat))
        yield Box(application=application, catalog=catalog, first_key=first_key, console=way_in, stop_answers=parts.hangups.stop)


def _turns(config: Config, clock: Clock, metrics: Metrics, seat: Seat | None) -> Turns:
    """Whose turn it is on a busy engine: decided here, or by the parent of several workers."""
    if seat is not None:
        return LinkedTurns(seat.link)
    pools = Pools(config.scheduler, clock)
    watch_queues(metrics, pools)
    return pools
