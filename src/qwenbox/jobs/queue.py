"""This is where workers share batches out: parts are claimed with leases, results and sums written, each once.

A line may be run twice after a crash, its booking and its result count once: the booking by its id, the result by its key here.
So nothing exact depends on leases or clocks; they only keep two workers from doing the same work.
"""

from collections.abc import Sequence

import anyio
import msgspec
from sqlalchemy import Connection, Select, and_, delete, exists, insert, not_, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from qwenbox.clock import Clock
from qwenbox.db import Database
from qwenbox.files import FILES
from qwenbox.gateway.journal.base import Outcome
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.jobs.batches import batch_of, sums, with_sums
from qwenbox.jobs.lines import Checked, Part
from qwenbox.jobs.tables import BATCHES, PARTS, RESULTS
from qwenbox.terms.job import Batch, BatchFault, BatchStatus, BatchUsage, StoredFile

# Rows of parts in one statement.
_TOGETHER = 1_000
_ENCODER = msgspec.json.Encoder()


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A part that is ours. is_again: somebody had it before, and may have run lines of it."""

    batch: Batch
    part: Part
    is_again: bool


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A line's end. call_id: under which its use is in the books, "" where nothing was asked. body: the line to write."""

    batch_id: str
    line: int
    call_id: str
    is_failed: bool
    body: bytes


class Queue:
    """owner: a name for this process's worker, never used again."""

    def __init__(self, database: Database, clock: Clock, owner: str, lease_s: float) -> None:
        self._database = database
        self._clock = clock
        self._owner = owner
        self._lease_s = lease_s

    async def beat(self) -> set[str]:
        """Keep what is ours, and learn which batches run no further lines: those that are cancelled or out of time."""
        now = self._clock.now()
        until = now + self._lease_s
        await self._database.write(
            update(PARTS).where(PARTS.c.owner == self._owner, not_(PARTS.c.is_done)).values(lease_until=until),
            update(BATCHES).where(BATCHES.c.owner == self._owner).values(lease_until=until),
        )
        ended = or_(BATCHES.c.status == BatchStatus.CANCELLING.value, _is_late(now))
        return {str(row["id"]) for row in await self._database.read(select(BATCHES.c.id).where(ended))}

    async def claim(self, count: int, busy: dict[str, int]) -> list[Claimed]:
        """Up to `count` parts, for the accounts that have least of this worker first. busy: parts that run, by account."""
        now = self._clock.now()
        open_ = select(BATCHES).where(BATCHES.c.status == BatchStatus.IN_PROGRESS.value, BATCHES.c.expires_at > now)
        batches = [batch_of(row) for row in await self._database.read(open_.order_by(BATCHES.c.created_at, BATCHES.c.id))]
        if not batches:
            return []
        # To its end: what was claimed when its worker was told to end would be taken after that worker gave back all it knew of.
        claimed: list[Claimed] = []
        with anyio.CancelScope(shield=True):
            claimed = await self._database.change(lambda connection: self._claim(connection, batches, count, dict(busy)))
        return claimed

    def _claim(self, connection: Connection, batches: list[Batch], count: int, busy: dict[str, int]) -> list[Claimed]:
        claimed: list[Claimed] = []
        waiting = list(batches)
        now = self._clock.now()
        while waiting and len(claimed) < count:
            batch = min(waiting, key=lambda batch: busy.get(batch.account_id, 0))
            row = connection.execute(self._free(batch.id, now)).mappings().first()
            if row is None:
                waiting.remove(batch)
                continue
            mine = {"owner": self._owner, "lease_until": now + self._lease_s, "claims": row["claims"] + 1}
            connection.execute(update(PARTS).where(PARTS.c.batch_id == batch.id, PARTS.c.first == row["first"]).values(**mine))
            part = Part(row["first"], row["count"], row["offset_bytes"])
            claimed.append(Claimed(batch=batch, part=part, is_again=row["claims"] > 0))
            busy[batch.account_id] = busy.get(batch.account_id, 0) + 1
        return claimed

    def _free(self, batch_id: str, now: float) -> Select[tuple[object, ...]]:
        not_mine = or_(PARTS.c.owner.is_(None), PARTS.c.owner != self._owner)
        query = select(PARTS).where(PARTS.c.batch_id == batch_id, not_(PARTS.c.is_done), PARTS.c.lease_until < now, not_mine)
        return query.order_by(PARTS.c.first).limit(1).with_for_update(skip_locked=True)

    async def done_lines(self, claimed: Claimed) -> set[int]:
        """Lines of a part that have their result."""
        part = claimed.part
        query = select(RESULTS.c.line).where(
            RESULTS.c.batch_id == claimed.batch.id, RESULTS.c.line >= part.first, RESULTS.c.line < part.first + part.count
        )
        return {int(str(row["line"])) for row in await self._database.read(query)}

    async def booked(self, call_ids: Sequence[str]) -> dict[str, bool]:
        """Of these calls those that are in the books, and whether they completed."""
        rows = await self._database.read(select(USAGE.c.id, USAGE.c.outcome).where(USAGE.c.id.in_(call_ids)))
        return {str(row["id"]): row["outcome"] == Outcome.COMPLETED.value for row in rows}

    async def record(self, results: Sequence[Result], parts: Sequence[Claimed]) -> None:
        """Results of lines, and parts all of whose lines have theirs: in one transaction."""
        ids = [result.call_id for result in results if result.call_id]
        columns = (
            USAGE.c.id,
            USAGE.c.input_tokens,
            USAGE.c.cached_tokens,
            USAGE.c.output_tokens,
            USAGE.c.reasoning_tokens,
            USAGE.c.cost_micros,
        )
        rows = await self._database.read(select(*columns).where(USAGE.c.id.in_(ids))) if ids else []
        used = {str(row["id"]): row for row in rows}
        await self._database.change(lambda connection: _record(connection, results, parts, used))

    async def release(self) -> None:
        """This worker ends: others, or its successor, need not wait for its leases. Nothing may be claimed or taken any more."""
        free = {"owner": None, "lease_until": 0.0}
        await self._database.write(
            update(PARTS).where(PARTS.c.owner == self._owner, not_(PARTS.c.is_done)).values(**free),
            update(BATCHES).where(BATCHES.c.owner == self._owner).values(**free),
        )

    async def to_validate(self) -> Batch | None:
        """A batch whose file is to be checked, ours now; None when there is none."""
        return await self._take(BATCHES.c.status == BatchStatus.VALIDATING.value)

    async def to_finish(self) -> Batch | None:
        """A batch that runs no further line and has none running, ours now; FINALIZING if it ended of itself."""
        now = self._clock.now()
        undone = exists().where(PARTS.c.batch_id == BATCHES.c.id, not_(PARTS.c.is_done))
        held = exists().where(PARTS.c.batch_id == BATCHES.c.id, not_(PARTS.c.is_done), PARTS.c.lease_until >= now)
        status = BATCHES.c.status
        over = or_(
            status == BatchStatus.FINALIZING.value,
            and_(status == BatchStatus.IN_PROGRESS.value, not_(undone)),
            and_(or_(status == BatchStatus.CANCELLING.value, _is_late(now)), not_(held)),
        )
        batch = await self._take(over)
        if batch is None or batch.status is not BatchStatus.IN_PROGRESS:
            return batch
        values = {"status": BatchStatus.FINALIZING.value, "finalizing_at": now}
        still = and_(BATCHES.c.id == batch.id, BATCHES.c.status == BatchStatus.IN_PROGRESS.value)
        await self._database.write(update(BATCHES).where(still).values(**values))
        rows = await self._database.read(select(BATCHES).where(BATCHES.c.id == batch.id))
        return batch_of(rows[0])

    async def _take(self, condition: object) -> Batch | None:
        def take(connection: Connection) -> Batch | None:
            now = self._clock.now()
            free = and_(condition, or_(BATCHES.c.lease_until < now, BATCHES.c.owner.is_(None), BATCHES.c.owner == self._owner))  # type: ignore[arg-type]  # a clause of ours
            query = select(BATCHES).where(free).order_by(BATCHES.c.created_at).limit(1).with_for_update(skip_locked=True)
            row = connection.execute(query).mappings().first()
            if row is None:
                return None
            mine = {"owner": self._owner, "lease_until": now + self._lease_s}
            connection.execute(update(BATCHES).where(BATCHES.c.id == row["id"]).values(**mine))
            return batch_of({str(name): value for name, value in row.items()})

        # To its end, as in `claim`.
        taken: Batch | None = None
        with anyio.CancelScope(shield=True):
            taken = await self._database.change(take)
        return taken

    async def begin(self, batch: Batch, checked: Checked) -> None:
        """The file is good: its parts are there to be claimed. Does nothing when the batch was cancelled meanwhile."""
        now = self._clock.now()
        values = {
            "status": BatchStatus.IN_PROGRESS.value,
            "in_progress_at": now,
            "expires_at": batch.created_at + batch.window_s,
            "model": checked.model,
            "total": checked.total,
            "owner": None,
            "lease_until": 0.0,
        }
        parts = [
            {
                "batch_id": batch.id,
                "first": part.first,
                "count": part.count,
                "offset_bytes": part.offset_bytes,
                "is_done": False,
                "claims": 0,
                "owner": None,
                "lease_until": 0.0,
            }
            for part in checked.parts
        ]

        def begin(connection: Connection) -> None:
            still = and_(BATCHES.c.id == batch.id, BATCHES.c.status == BatchStatus.VALIDATING.value)
            if connection.execute(update(BATCHES).where(still).values(**values)).rowcount:
                for start in range(0, len(parts), _TOGETHER):
                    connection.execute(insert(PARTS), parts[start : start + _TOGETHER])

        await self._database.change(begin)

    async def fail(self, batch: Batch, faults: Sequence[BatchFault], total: int = 0) -> None:
        """The batch ends before any line was run, or because it cannot be ended well."""
        values = {
            "status": BatchStatus.FAILED.value,
            "failed_at": self._clock.now(),
            "faults": _ENCODER.encode(faults).decode(),
            "total": total,
            "owner": None,
        }
        running = (BatchStatus.VALIDATING.value, BatchStatus.CANCELLING.value, BatchStatus.FINALIZING.value)
        await self._database.write(update(BATCHES).where(BATCHES.c.id == batch.id, BATCHES.c.status.in_(running)).values(**values))

    async def results(self, batch_id: str, first: int, count: int) -> dict[int, tuple[bool, bytes]]:
        """Of these lines those that have a result: whether it failed, and its text."""
        query = select(RESULTS.c.line, RESULTS.c.is_failed, RESULTS.c.body).where(
            RESULTS.c.batch_id == batch_id, RESULTS.c.line >= first, RESULTS.c.line < first + count
        )
        rows = await self._database.read(query)
        return {int(str(row["line"])): (bool(row["is_failed"]), str(row["body"]).encode()) for row in rows}

    async def finish(self, batch: Batch, end: BatchStatus, output: StoredFile | None, errors: StoredFile | None) -> None:
        """The files are written: the batch is over, and what they were written from is gone. In one transaction."""
        now = self._clock.now()
        counted = with_sums(batch, await self._database.read(sums(batch.id)))
        values = {
            "status": end.value,
            f"{end.value}_at": now,
            "output_file_id": output.id if output else None,
            "error_file_id": errors.id if errors else None,
            "completed": counted.completed,
            "failed": batch.total - counted.completed,
            "usage": _usage(counted.usage),
            "owner": None,
        }
        files = [_file_row(stored) for stored in (output, errors) if stored is not None]
        running = (BatchStatus.CANCELLING.value, BatchStatus.FINALIZING.value)

        def finish(connection: Connection) -> None:
            still = and_(BATCHES.c.id == batch.id, BATCHES.c.status.in_(running))
            if not connection.execute(update(BATCHES).where(still).values(**values)).rowcount:
                return
            if files:
                connection.execute(insert(FILES), files)
            connection.execute(delete(RESULTS).where(RESULTS.c.batch_id == batch.id))
            connection.execute(delete(PARTS).where(PARTS.c.batch_id == batch.id))

        await self._database.change(finish)


def _is_late(now: float):
    return and_(BATCHES.c.status == BatchStatus.IN_PROGRESS.value, BATCHES.c.expires_at <= now)


def _usage(usage: BatchUsage) -> str:
    return _ENCODER.encode(usage).decode()


def _file_row(stored: StoredFile) -> dict[str, object]:
    return {**msgspec.structs.asdict(stored), "purpose": stored.purpose.value}


def _record(connection: Connection, results: Sequence[Result], parts: Sequence[Claimed], used: dict[str, dict[str, object]]) -> None:
    names = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost_micros")
    # Whoever lost its lease may come when the batch is over and its results are gone for good.
    ids = {result.batch_id for result in results}
    over = BATCHES.c.status.not_in((BatchStatus.IN_PROGRESS.value, BatchStatus.CANCELLING.value, BatchStatus.FINALIZING.value))
    ended = set(connection.execute(select(BATCHES.c.id).where(BATCHES.c.id.in_(ids), over)).scalars()) if ids else set[str]()
    rows = [
        {
            "batch_id": result.batch_id,
            "line": result.line,
            "is_failed": result.is_failed,
            "body": result.body.decode(),
            **{name: used.get(result.call_id, {}).get(name) or 0 for name in names},
        }
        for result in results
        if result.batch_id not in ended
    ]
    if rows:
        into = postgres_insert(RESULTS) if connection.dialect.name == "postgresql" else sqlite_insert(RESULTS)
        connection.execute(into.on_conflict_do_nothing(), rows)
    for claimed in parts:
        mine = and_(PARTS.c.batch_id == claimed.batch.id, PARTS.c.first == claimed.part.first)
        connection.execute(update(PARTS).where(mine).values(is_done=True, owner=None))
