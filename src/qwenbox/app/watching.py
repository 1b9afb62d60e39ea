"""This is where a process counts and traces: its metrics with what can be told of its parts, their page, its spans."""

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial

import anyio.to_thread

from qwenbox.config import Config
from qwenbox.gateway.catalog import Catalog
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.scheduler import Pools
from qwenbox.server.admin.guard import Guard
from qwenbox.server.metrics import MetricsPage
from qwenbox.telemetry import gauges
from qwenbox.telemetry.metrics import Metrics
from qwenbox.telemetry.snapshot import Snapshot, pack, unpack
from qwenbox.telemetry.watch import Tracer, Watch
from qwenbox.terms.engine import TextEngine
from qwenbox.terms.gauges import HasChildren
from qwenbox.workers.link import AskMetrics, GivenMetrics
from qwenbox.workers.seat import Seat

_LOG = logging.getLogger("qwenbox")


def process_metrics(process: str, catalog: Catalog, engines: Mapping[str, TextEngine]) -> Metrics:
    """Of this process, with what can be told of its engines' child processes. engines: by name, as they were opened."""
    models = frozenset(model.entry.name for model in catalog.every())
    deployments = frozenset(deployment.name for model in catalog.every() for deployment in model.deployments)
    owners = {name: engine for name, engine in engines.items() if isinstance(engine, HasChildren)}
    metrics = Metrics(process, models, deployments)
    metrics.watch(lambda: gauges.children(owners))
    return metrics


def watch_queues(metrics: Metrics, pools: Pools) -> None:
    """From now on metrics tell who waits for which engine."""
    metrics.watch(lambda: gauges.queues(pools.states()))


def watch_calls(metrics: Metrics, gateway: Gateway) -> None:
    """From now on metrics tell of every call's end, whether the books are open, and how deployments stand."""
    journal, standings = gateway.metering.journal, gateway.router.standings
    gateway.metering.observe(metrics.call_ended)
    metrics.watch(lambda: gauges.books(journal.is_open))
    metrics.watch(lambda: gauges.deployments(standings.states()))


def metrics_page(config: Config, metrics: Metrics, guard: Guard, seat: Seat | None) -> MetricsPage:
    """What Prometheus reads; in a worker of the whole crew, by its parent."""
    if seat is not None:
        seat.link.count = lambda: pack(metrics.snapshot())
    return MetricsPage(config.metrics, config.server.host, guard, partial(_rendered, metrics, seat))


def exchange_watch(stack: AsyncExitStack, config: Config, metrics: Metrics, seat: Seat | None) -> Watch:
    """What hears of every exchange's end: metrics, the access log, the tracer."""
    return Watch(metrics, logs_access=config.log.access, tracer=_tracer(stack, config, seat))


def process_name(seat: Seat | None) -> str:
    """This process's in metrics and traces."""
    return f"worker-{seat.index}" if seat else "box"


async def counted(metrics: Metrics, seat: Seat | None) -> Snapshot:
    """What all processes of the box counted."""
    return metrics.snapshot() if seat is None else unpack((await seat.link.get(AskMetrics(), GivenMetrics)).snapshot)


async def _rendered(metrics: Metrics, seat: Seat | None, accept: str) -> tuple[str, bytes]:
    """All the box counted as Prometheus reads it: media type and text."""
    snapshot = await counted(metrics, seat)
    # In a thread: the first page imports the library, and a long one must not hold up streams.
    return await anyio.to_thread.run_sync(_page, snapshot, accept)


def _page(snapshot: Snapshot, accept: str) -> tuple[str, bytes]:
    from qwenbox.telemetry.exposition import page

    return page(snapshot, accept)


def _tracer(stack: AsyncExitStack, config: Config, seat: Seat | None) -> Tracer | None:
    """Where spans go, for a box that traces."""
    if not config.traces.endpoint:
        return None
    try:
        from qwenbox.telemetry.traces import open_traces
    except ImportError:
        _LOG.warning("No traces are sent to %s: that needs `pip install 'qwenbox[otel]'`.", config.traces.endpoint)
        return None
    traces = open_traces(config.traces.endpoint, process_name(seat))
    stack.push_async_callback(anyio.to_thread.run_sync, traces.close)
    return traces.ended
