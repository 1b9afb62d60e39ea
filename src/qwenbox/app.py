"""This is where a box is put together: Config in, running box out. The only place that builds components."""

import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TypeAlias

import anyio
import anyio.to_thread
import msgspec

from qwenbox.clock import Clock, SystemClock, TestClock
from qwenbox.config import Config, ConfigError, encode
from qwenbox.db import Database, open_database
from qwenbox.dialects.dashscope.dialect import DIALECT as DASHSCOPE
from qwenbox.dialects.openai.dialect import DIALECT as OPENAI
from qwenbox.dialects.registry import DIALECTS
from qwenbox.engines.faults import faulty
from qwenbox.engines.llamacpp.engine import LlamaCpp
from qwenbox.engines.llamacpp.vectors import LlamaVectors
from qwenbox.engines.memory import MemoryBudget
from qwenbox.engines.registry import EngineParts, around, open_engine, opened_in_order
from qwenbox.engines.tokenizer import Vocabularies
from qwenbox.files import Files
from qwenbox.gateway.accounts import Accounts
from qwenbox.gateway.admission import Admission
from qwenbox.gateway.alerts import Alerts
from qwenbox.gateway.attempts.standing import AttemptsConfig, Standings
from qwenbox.gateway.cache.base import Shelf
from qwenbox.gateway.cache.cache import Cache
from qwenbox.gateway.cache.database import DatabaseShelf
from qwenbox.gateway.cache.valkey import SCRIPTS as CACHE_SCRIPTS
from qwenbox.gateway.cache.valkey import ValkeyShelf
from qwenbox.gateway.catalog import Catalog
from qwenbox.gateway.conversations import Conversations
from qwenbox.gateway.counters.apart import ApartCounters, parted
from qwenbox.gateway.counters.base import CountersConfig, LiveWindow
from qwenbox.gateway.counters.members import Books, Past, Setting
from qwenbox.gateway.counters.memory import MemoryCounters
from qwenbox.gateway.counters.scripts import SCRIPTS
from qwenbox.gateway.counters.shared import SharedCounters
from qwenbox.gateway.journal.base import Journal
from qwenbox.gateway.journal.registry import open_journal
from qwenbox.gateway.keys import Keys, NewKey
from qwenbox.gateway.ledger import Ledger
from qwenbox.gateway.limits import Tiers
from qwenbox.gateway.metering import Metering
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.prefixes import Prefixes
from qwenbox.gateway.prices import Prices, record
from qwenbox.gateway.recent import Recent
from qwenbox.gateway.redaction.config import Mode
from qwenbox.gateway.redaction.redactor import Redactor
from qwenbox.gateway.router import Router
from qwenbox.gateway.scheduler import Pools
from qwenbox.gateway.settings import Settings
from qwenbox.gateway.shared_clock import SharedClock
from qwenbox.gateway.short_lived import ShortLivedKeys, shared_secret
from qwenbox.gateway.statements import Statements
from qwenbox.jobs.batches import Batches
from qwenbox.jobs.line import LineRunner
from qwenbox.jobs.queue import Queue
from qwenbox.jobs.results import PREFIX as RESULTS_PREFIX
from qwenbox.jobs.results import Results, results_secret
from qwenbox.jobs.task_queue import TaskQueue
from qwenbox.jobs.task_worker import TaskParts, TaskWorker
from qwenbox.jobs.tasks import Tasks
from qwenbox.jobs.wakeup import Wakeup
from qwenbox.jobs.worker import BatchWorker, WorkerParts, owner
from qwenbox.media.download import Downloads
from qwenbox.media.media import Media
from qwenbox.remote import Remote
from qwenbox.server.admin.api import AdminApi
from qwenbox.server.admin.guard import AdminKey, Guard, admin_key
from qwenbox.server.admin.openapi import PREFIX as ADMIN_PREFIX
from qwenbox.server.admin.parts import AdminParts, Live
from qwenbox.server.asgi import Desk, build
from qwenbox.server.exchange import Hangups, Receive, Scope, Send
from qwenbox.server.metrics import MetricsPage
from qwenbox.server.parts import Parts, missing
from qwenbox.server.probes import Probes
from qwenbox.server.receipts import PREFIX as RECEIPTS_PREFIX
from qwenbox.server.receipts import Receipts
from qwenbox.server.result_links import ResultLinks
from qwenbox.server.uploads import PREFIX as UPLOADS_PREFIX
from qwenbox.server.uploads import Received
from qwenbox.tape import TapeRemote
from qwenbox.telemetry import gauges
from qwenbox.telemetry.metrics import Metrics
from qwenbox.telemetry.snapshot import Snapshot, pack, unpack
from qwenbox.telemetry.watch import Tracer, Watch
from qwenbox.terms.engine import TextEngine
from qwenbox.terms.errors import ApiError
from qwenbox.terms.gauges import HasChildren
from qwenbox.terms.secret import Secret
from qwenbox.uploads import SIGNING, Uploads
from qwenbox.valkey.store import Store, StoreRefused, open_store
from qwenbox.weights.store import WeightsStore
from qwenbox.workers.census import Census
from qwenbox.workers.fork import Forked
from qwenbox.workers.link import AskMetrics, GivenMetrics
from qwenbox.workers.parent import Crew, CrewPlan, WorkerCommand
from qwenbox.workers.seat import Seat
from qwenbox.workers.turns import LinkedLanes, LinkedTurns

_LOG = logging.getLogger("qwenbox")

DEFAULT_ACCOUNT = "default"
FIRST_KEY = "first"

# Something that runs as long as the box.
Follower: TypeAlias = Callable[[], Coroutine[None, None, None]]


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """A running box. first_key: the key made at this start, shown once; None when there were keys already."""

    application: Callable[[Scope, Receive, Send], Awaitable[None]]
    catalog: Catalog
    first_key: Secret | None


class Parent(msgspec.Struct, frozen=True, kw_only=True):
    """A box of several workers, seen from the process that starts them. crew: runs them."""

    catalog: Catalog
    first_key: Secret | None
    crew: Crew


class Office(msgspec.Struct, frozen=True, kw_only=True):
    """What administration needs of a box, running or not. shared_clock: the same clock as somebody to move it; only for testing."""

    clock: Clock
    shared_clock: SharedClock | None
    database: Database
    journal: Journal
    accounts: Accounts
    keys: Keys
    ledger: Ledger
    statements: Statements
    prices: Prices


@asynccontextmanager
async def open_office(config: Config, clock: Clock | None = None) -> AsyncGenerator[Office]:
    """Accounts, keys and books on the box's database, also beside a running box."""
    config.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    real = SystemClock(config.testing.skew_s)
    clock = clock or (TestClock(real) if config.testing.clock else real)
    async with open_database(config.database_url) as database:
        if not await database.is_current():
            # Alembic takes 0.2 s to import and is needed once per upgrade, not at every start.
            from qwenbox.migrations.upgrade import upgrade

            await database.change(upgrade)
        async with open_journal(config.database_url, config.journal, clock) as journal:
            prices = config.prices
            ledger = Ledger(database, journal, clock, prices.currency)
            await ledger.open()
            shared_clock = None
            if isinstance(clock, TestClock):
                shared_clock = SharedClock(Settings(database), clock, real)
                await shared_clock.refresh()
            yield Office(
                clock=clock,
                shared_clock=shared_clock,
                database=database,
                journal=journal,
                accounts=Accounts(database, clock, tiers=frozenset(config.tier)),
                keys=Keys(database, clock),
                ledger=ledger,
                statements=Statements(database),
                prices=prices,
            )


@asynccontextmanager
async def open_box(config: Config, clock: Clock | None = None, seat: Seat | None = None) -> AsyncGenerator[Box]:
    """Everything, opened in dependency order and closed in reverse. seat: in one of several workers, whose parent has the engines."""
    async with AsyncExitStack() as stack:
        office = await stack.enter_async_context(open_office(config, clock))
        clock = office.clock
        first_key = await _first_key(office, config.api_key, may_draw=seat is None)
        await record(office.database, office.prices)
        engines = await _open_engines(stack, config, clock, seat)
        owners = _with_children(engines)
        if config.provokes or config.faults.share:
            engines = {name: faulty(engine, config.faults) for name, engine in engines.items()}
        catalog = Catalog(config.model, engines, _redactors(config))
        metrics = _metrics(f"worker-{seat.index}" if seat else "box", catalog, owners)
        turns = LinkedTurns(seat.link) if seat else _watched(Pools(config.scheduler, clock), metrics)
        counters = await _open_counters(stack, config, office, clock, seat)
        admission = Admission(counters, Tiers(config.limits, config.tier), office.prices, office.journal, clock)
        metering = Metering(office.journal, admission, clock, Alerts(config.money.alert_share, office.keys.budget).hear)
        metering.observe(metrics.call_ended)
        metrics.watch(lambda: gauges.books(office.journal.is_open))
        standings = Standings(AttemptsConfig(retries=config.retries, breaker=config.breaker), clock)
        metrics.watch(lambda: gauges.deployments(standings.states()))
        gateway = Gateway(catalog, Router(config.scheduler, turns, standings), admission, metering, config.compat)
        cache = await _open_cache(stack, config, office)
        gateway.remember(cache)
        if config.prefixes.enabled:
            gateway.watch_prefixes(Prefixes())
        files = Files(office.database, config.home / "files", config.files, clock)
        signing = Secret(await Settings(office.database).once(SIGNING, secrets.token_hex(32)))
        uploads = Uploads(office.database, config.home / "uploads", config.uploads, clock, signing)
        gateway.see(Media(config.media, Downloads(config.media), uploads))
        conversations = Conversations(office.database, config.conversations, clock)
        parts = Parts(
            gateway=gateway,
            conversations=conversations,
            files=files,
            uploads=uploads,
            batches=Batches(office.database, files, clock, office.prices.currency, Wakeup()),
            tasks=Tasks(office.database, config.tasks, clock, Wakeup()),
            results=Results(
                office.database, config.home / "results", config.results, await results_secret(Settings(office.database)), clock
            ),
            keys=office.keys,
            short_lived=ShortLivedKeys(await shared_secret(Settings(office.database)), office.keys, clock),
            prices=office.prices,
            config=config.server,
            hangups=Hangups(),
            provokes=config.provokes,
        )
        live = Live(catalog=catalog, windows=partial(_windows, counters))
        admin = admin_api(config, office, admin_key(config.admin, config.home), live, cache)
        desks: dict[str, Desk] = {
            ADMIN_PREFIX: admin,
            RECEIPTS_PREFIX: Receipts(office.statements, parts.verify),
            UPLOADS_PREFIX: Received(uploads, DASHSCOPE.uploads or missing(DASHSCOPE)),
            RESULTS_PREFIX: ResultLinks(parts.results),
        }
        followers: list[Follower] = [
            office.keys.follow,
            partial(admission.follow, office.ledger.load),
            metering.follow,
            cache.follow,
            _batch_worker(config, office, parts, metrics, seat).follow,
            _task_worker(config, office, parts, seat).follow,
        ]
        if office.shared_clock is not None:
            followers.append(office.shared_clock.follow)
        if isinstance(counters, SharedCounters):
            followers.append(counters.follow)
        if seat is None or seat.index == 1:
            followers.append(partial(office.statements.follow, config.retention, clock))
            followers.append(conversations.follow)
            followers.append(uploads.follow)
            followers.append(parts.results.follow)
        await _follow(stack, followers)
        page = MetricsPage(config.metrics, config.server.host, admin.guard, partial(_rendered, metrics, seat))
        watch = Watch(metrics, logs_access=config.log.access, tracer=_tracer(stack, config, seat))
        if seat is not None:
            seat.link.count = lambda: pack(metrics.snapshot())
        application = build(parts, DIALECTS, Probes(catalog, DIALECTS, page), desks, watch)
        yield Box(application=application, catalog=catalog, first_key=first_key)


def _with_children(engines: Mapping[str, TextEngine]) -> dict[str, HasChildren]:
    return {name: engine for name, engine in engines.items() if isinstance(engine, HasChildren)}


def _metrics(process: str, catalog: Catalog, owners: Mapping[str, HasChildren]) -> Metrics:
    """Of this process, with what can be told of its engines. owners: of child processes, by the engine's name."""
    models = frozenset(model.entry.name for model in catalog.every())
    deployments = frozenset(deployment.name for model in catalog.every() for deployment in model.deployments)
    metrics = Metrics(process, models, deployments)
    metrics.watch(lambda: gauges.children(owners))
    return metrics


def _watched(pools: Pools, metrics: Metrics) -> Pools:
    metrics.watch(lambda: gauges.queues(pools.states()))
    return pools


async def _rendered(metrics: Metrics, seat: Seat | None, accept: str) -> tuple[str, bytes]:
    """All the box counted as Prometheus reads it: media type and text."""
    snapshot = metrics.snapshot() if seat is None else unpack((await seat.link.get(AskMetrics(), GivenMetrics)).snapshot)
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
    traces = open_traces(config.traces.endpoint, f"worker-{seat.index}" if seat else "box")
    stack.push_async_callback(anyio.to_thread.run_sync, traces.close)
    return traces.ended


def _batch_worker(config: Config, office: Office, parts: Parts, metrics: Metrics, seat: Seat | None) -> BatchWorker:
    """This process's share of the box's work on batches."""
    own = msgspec.structs.replace(config.batch, concurrency=max(1, config.batch.concurrency // (seat.count if seat else 1)))
    queue = Queue(office.database, office.clock, owner(), own.lease_s)
    runner = LineRunner(parts.gateway, OPENAI, office.keys.caller, office.clock)
    needs = WorkerParts(
        queue=queue,
        files=parts.files,
        runner=runner,
        catalog=parts.gateway.catalog,
        clock=office.clock,
        line_ended=metrics.line_ended,
    )
    return BatchWorker(own, needs, parts.batches.wakeup)


def _task_worker(config: Config, office: Office, parts: Parts, seat: Seat | None) -> TaskWorker:
    """This process's share of the box's work on tasks."""
    own = msgspec.structs.replace(config.tasks, concurrency=max(1, config.tasks.concurrency // (seat.count if seat else 1)))
    queue = TaskQueue(office.database, office.clock, owner(), own.lease_s)
    needs = TaskParts(queue=queue, gateway=parts.gateway, results=parts.results, caller=office.keys.caller, clock=office.clock)
    return TaskWorker(own, needs, parts.tasks.wakeup)


@asynccontextmanager
async def open_catalog(config: Config) -> AsyncGenerator[Catalog]:
    """Models and what answers them, without a box: to count with. No weights are loaded, no books opened."""
    async with AsyncExitStack() as stack:
        yield Catalog(config.model, await _open_engines(stack, config, SystemClock()), _redactors(config))


async def _follow(stack: AsyncExitStack, followers: Sequence[Follower]) -> None:
    """Run what runs as long as the box; last of all, since a task group wraps what goes wrong inside it, and a start that fails shall say
    one clear thing."""
    tasks = await stack.enter_async_context(anyio.create_task_group())
    stack.callback(tasks.cancel_scope.cancel)
    for follower in followers:
        tasks.start_soon(follower)


async def _open_counters(
    stack: AsyncExitStack, config: Config, office: Office, clock: Clock, seat: Seat | None
) -> MemoryCounters | ApartCounters | SharedCounters:
    """In memory, with what the calls of the last window used; or in Valkey, which remembers by itself."""
    counting = CountersConfig(window_s=config.limits.window_s, wait_s=config.money.wait_s)
    if not config.valkey.url.reveal():
        load = parted(office.ledger.load, seat.index, seat.count) if seat else office.ledger.load
        counters = MemoryCounters(counting, clock, load)
        if seat is not None:
            return ApartCounters(counters, seat.index, seat.count)
        for call in await _recent(config, office, clock.now() - counting.window_s):
            for window_id in call.windows:
                counters.restore(window_id, call.at, call.tokens)
        return counters
    try:
        store = await stack.enter_async_context(open_store(config.valkey, SCRIPTS))
    except StoreRefused as error:
        raise ConfigError(f"The shared store of [valkey] url refuses us: {error}") from error
    books = Books(load=office.ledger.load, settled=Recent(office.database).used, recent=partial(_recent, config, office))
    return SharedCounters(Setting(counters=counting, valkey=config.valkey), store, clock, books)


def _cache(config: Config, office: Office, store: Store | None) -> Cache:
    """The response cache, on what all processes of the box share. store: Valkey, where there is one."""
    # Where calls fail by lot, each has its own: a kept answer would draw none.
    own = msgspec.structs.replace(config.cache, enabled=False) if config.faults.share or config.tape.file else config.cache
    shelf: Shelf = DatabaseShelf(office.database, own, office.clock)
    if store is not None:
        shelf = ValkeyShelf(store, config.valkey.prefix, own, office.clock)
    return Cache(own, shelf, Settings(office.database), office.clock)


async def _open_cache(stack: AsyncExitStack, config: Config, office: Office) -> Cache:
    # A connection of its own: counters must not wait behind large answers.
    store = await stack.enter_async_context(open_store(config.valkey, CACHE_SCRIPTS)) if config.valkey.url.reveal() else None
    return _cache(config, office, store)


async def _windows(counters: MemoryCounters | ApartCounters | SharedCounters) -> tuple[LiveWindow, ...]:
    return await counters.snapshot() if isinstance(counters, SharedCounters) else counters.snapshot()


async def _recent(config: Config, office: Office, since: float) -> list[Past]:
    """Calls that still count in their windows: a restart, of the box or of the store, does not open new ones."""
    tiers = Tiers(config.limits, config.tier)
    found: list[Past] = []
    for call in await Recent(office.database).since(since):
        with suppress(ApiError):  # of a key that is no longer valid
            windows = tiers.windows(office.keys.caller(call.key_id), call.model)
            found.append(Past(call.id, call.admitted_at, call.tokens, tuple(window.id for window in windows)))
    return found


def admin_api(config: Config, office: Office, key: AdminKey, live: Live | None = None, cache: Cache | None = None) -> AdminApi:
    """The admin API of a running box, or of its data folder alone (live, cache: None)."""
    if cache is None:
        cache = _cache(config, office, _unconnected(config))
    parts = AdminParts(
        accounts=office.accounts,
        keys=office.keys,
        ledger=office.ledger,
        statements=office.statements,
        prices=office.prices,
        cache=cache,
        clock=office.clock,
        live=live,
        test_clock=office.shared_clock,
    )
    return AdminApi(parts, Guard(key, config.server.host, office.accounts.log_in, office.clock), config.admin.body_limit_bytes)


def _unconnected(config: Config) -> Store | None:
    """Valkey, which is reached once it is asked; None where there is none."""
    try:
        return Store(config.valkey, CACHE_SCRIPTS) if config.valkey.url.reveal() else None
    except StoreRefused as error:
        raise ConfigError(str(error)) from error


@asynccontextmanager
async def open_parent(config: Config, command: WorkerCommand, forked: Sequence[Forked] = ()) -> AsyncGenerator[Parent]:
    """Several workers, and what they share: a database that is up to date, the engines' children and their queues.

    command: see CrewPlan. forked: the first workers, where they were forked off already.
    """
    clock = SystemClock(config.testing.skew_s)
    async with AsyncExitStack() as stack:
        async with open_office(config, clock) as office:
            first_key = await _first_key(office, config.api_key)
        engines = await _open_engines(stack, config, clock)
        lanes = {name: engine for name, engine in engines.items() if isinstance(engine, LlamaCpp | LlamaVectors)}
        plan = CrewPlan(count=config.server.workers, command=command, config=encode(config), drain_s=config.server.drain_s)
        catalog = Catalog(config.model, engines, _redactors(config))
        metrics = _metrics("parent", catalog, _with_children(engines))
        crew = Crew(plan, _watched(Pools(config.scheduler, clock), metrics), lanes, forked, Census(metrics.snapshot))
        yield Parent(catalog=catalog, first_key=first_key, crew=crew)


async def _open_engines(stack: AsyncExitStack, config: Config, clock: Clock, seat: Seat | None = None) -> dict[str, TextEngine]:
    remote = await stack.enter_async_context(_remote(config, clock))
    store = await stack.enter_async_context(WeightsStore(config.home, config.weights, config.store))
    parts = EngineParts(
        remote=remote, store=store, memory=MemoryBudget(config.memory.bytes_allowed), vocabularies=Vocabularies(), clock=clock
    )
    engines: dict[str, TextEngine] = {}
    for name, engine in opened_in_order(config.engine):
        own = msgspec.structs.replace(parts, engines=engines, lanes=LinkedLanes(seat.link, name) if seat else None)
        engines[name] = await stack.enter_async_context(open_engine(engine, own))
    return engines


def _remote(config: Config, clock: Clock) -> Remote:
    """The way to model servers; past a tape, where there is one."""
    if not config.tape.file:
        return Remote()
    try:
        return TapeRemote(config.tape, config.home / config.tape.file, clock)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _redactors(config: Config) -> dict[str, Redactor]:
    """Those of `[redaction.NAME]`; the libraries behind them are imported only for a box that has one."""
    wanted = {name: redaction for name, redaction in config.redaction.items() if redaction.mode is not Mode.OFF}
    if not wanted:
        return {}
    from qwenbox.gateway.redaction.detector import detector
    from qwenbox.gateway.redaction.patterns import BadPattern

    try:
        found = {
            name: Redactor(redaction.mode, detector(redaction), lets_pictures_pass=redaction.lets_pictures_pass)
            for name, redaction in wanted.items()
        }
        return {**{name: found[inner] for name, inner in around(config.engine).items() if inner in found}, **found}
    except BadPattern as error:
        raise ConfigError(f"The configuration is wrong: {error}.") from error


async def _first_key(office: Office, preset: Secret | None, *, may_draw: bool = True) -> Secret | None:
    """A preset key is made sure of at every start; without one, the first start draws one. may_draw: False in a worker."""
    await office.keys.refresh()
    if not may_draw:
        return None
    if preset is None and any(key.revoked_at is None for key in await office.keys.every()):
        return None
    account = await office.accounts.named(DEFAULT_ACCOUNT)
    _, secret = await office.keys.issue(NewKey(account_id=account.id, name=FIRST_KEY, secret=preset))
    return secret
