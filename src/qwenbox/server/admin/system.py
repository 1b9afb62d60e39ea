"""This is where the box tells of itself over HTTP: how it does, what is wrong with it, how it is set."""

import platform
import shutil
from collections.abc import Iterable

import anyio
import anyio.to_thread

from qwenbox import __version__
from qwenbox.client.shapes import Nothing, Page
from qwenbox.client.system import DatabaseState, EngineChild, EngineQueue, Finding, ProcessState, Setting, Standing, System
from qwenbox.db import REVISION
from qwenbox.gateway.catalog import ANY_MODEL
from qwenbox.server.admin import cache, findings
from qwenbox.server.admin.engines import healths_of
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts, live
from qwenbox.telemetry import names
from qwenbox.telemetry.names import Family
from qwenbox.telemetry.snapshot import Snapshot


async def state(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> System:
    """How the box does: processes, engines' children, queues, database, disk, cache. Only a running box can tell."""
    machine, about = live(parts).machine, live(parts).machine.about
    counted = _Counted(await machine.counted())
    disk = shutil.disk_usage(about.home)
    now = parts.clock.now()
    return System(
        version=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        started_at=about.started_at,
        uptime_s=max(0.0, now - about.started_at),
        profile=about.profile,
        home=str(about.home),
        workers=about.workers,
        in_progress=int(counted.sum(names.IN_PROGRESS)),
        memory_limit_bytes=about.memory_limit_bytes,
        disk_free_bytes=disk.free,
        disk_total_bytes=disk.total,
        valkey=machine.valkey(),
        database=DatabaseState(
            kind=machine.database.kind,
            revision=REVISION,
            bytes=await machine.database.size_bytes(),
            is_open=not counted.sum(names.BOOKS_CLOSED),
        ),
        cache=await cache.state(parts, asked),
        processes=tuple(
            ProcessState(name=name, cpu_s=counted.of(names.CPU, name), memory_bytes=int(counted.of(names.MEMORY, name)))
            for (name,) in counted.labels(names.MEMORY)
        ),
        children=tuple(_child(counted, engine, role) for engine, role in counted.labels(names.CHILD_STARTS)),
        queues=tuple(_queue(counted, name) for name in counted.first(names.SLOTS, names.KV, names.WAITING)),
        standings=tuple(_standing(counted, name) for name in counted.first(names.RETRIES)),
    )


async def examine(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Page[Finding]:
    """What `qwenbox doctor` finds, from inside: trouble first. Nothing is fetched and nobody is asked for weights."""
    machine, catalog = live(parts).machine, live(parts).catalog
    users: dict[str, list[str]] = {}
    for model in catalog.every():
        for deployment in model.deployments:
            for name in machine.files.get(deployment.name, ()):
                if model.entry.name not in users.setdefault(name, []):
                    users[name].append(model.entry.name)
    first = catalog.every()[:1]
    default = {name for model in first for deployment in model.deployments for name in machine.files.get(deployment.name, ())}
    needed = findings.needed_bytes(machine.store, users, machine.about.margin_bytes)
    found = [await anyio.to_thread.run_sync(findings.home, machine.about.home, needed)]
    if users:
        found.append(await anyio.to_thread.run_sync(findings.engine))
        found += findings.weights(machine.store, users, default)
    named = [model for model in catalog.every() if model.entry.name != ANY_MODEL]
    healths = await healths_of(named)
    found += [findings.model(model.entry.name, [healths[one.name].state.value for one in model.deployments]) for model in named]
    found += findings.running(await state(parts, asked))
    order = ("failed", "warning", "ok")
    return Page(items=tuple(sorted(found, key=lambda finding: order.index(finding.verdict))))


async def settings(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Page[Setting]:
    """Every setting in force, by name, as qwenbox.toml would have it; secrets and engines' addresses are hidden. Of models, prices and
    weights only what is not as it ships."""
    return Page(items=await anyio.to_thread.run_sync(live(parts).machine.settings))


class _Counted:
    """What was counted, by family and labels."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._values = {(one.name, one.labels): one.value for one in snapshot.samples}

    def of(self, family: Family, *labels: str) -> float:
        return self._values.get((family.name, labels), 0.0)

    def known(self, family: Family, *labels: str) -> int | None:
        found = self._values.get((family.name, labels))
        return None if found is None else int(found)

    def sum(self, family: Family) -> float:
        return sum(value for (name, _), value in self._values.items() if name == family.name)

    def labels(self, family: Family) -> list[tuple[str, ...]]:
        return sorted(labels for name, labels in self._values if name == family.name)

    def first(self, *families: Family) -> Iterable[str]:
        """First labels of any of them."""
        return sorted({labels[0] for family in families for labels in self.labels(family)})


def _child(counted: _Counted, engine: str, role: str) -> EngineChild:
    return EngineChild(
        engine=engine,
        role=role,
        is_ready=counted.of(names.CHILD_READY, engine, role) > 0,
        starts=int(counted.of(names.CHILD_STARTS, engine, role)),
        restarts=int(counted.of(names.CHILD_RESTARTS, engine, role)),
        memory_bytes=int(counted.of(names.CHILD_MEMORY, engine, role)),
    )


def _queue(counted: _Counted, name: str) -> EngineQueue:
    return EngineQueue(
        name=name,
        slots=counted.known(names.SLOTS, name),
        slots_used=int(counted.of(names.SLOTS_USED, name)),
        kv_tokens=counted.known(names.KV, name),
        kv_tokens_used=int(counted.of(names.KV_USED, name)),
        waiting={labels[1]: int(counted.of(names.WAITING, *labels)) for labels in counted.labels(names.WAITING) if labels[0] == name},
    )


def _standing(counted: _Counted, name: str) -> Standing:
    return Standing(
        deployment=name,
        answered=int(counted.of(names.ATTEMPTS, name, "answered")),
        failed=int(counted.of(names.ATTEMPTS, name, "failed")),
        retries=int(counted.of(names.RETRIES, name)),
        open_in=int(counted.of(names.BREAKER, name)),
    )


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /system", state),
    operation("GET /system/findings", examine),
    operation("GET /system/settings", settings),
)
