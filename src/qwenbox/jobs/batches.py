"""This is where batches are made, shown, listed and cancelled: the rows their owners see."""

import uuid

import msgspec
from sqlalchemy import BigInteger, Select, cast, func, insert, or_, select, update
from sqlalchemy import and_ as both

from qwenbox.clock import Clock
from qwenbox.db import Database
from qwenbox.files import Files
from qwenbox.jobs.tables import BATCHES, RESULTS
from qwenbox.jobs.wakeup import Wakeup
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.job import Batch, BatchesPage, BatchStatus, BatchUsage, NewBatch, PageAsked, Purpose

RUNNING = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)
_ENCODER = msgspec.json.Encoder()


class Batches:
    """wakeup: tells this process's worker that there is something to do."""

    def __init__(self, database: Database, files: Files, clock: Clock, currency: str, wakeup: Wakeup) -> None:
        self._database = database
        self._files = files
        self._clock = clock
        self._currency = currency
        self.wakeup = wakeup

    async def create(self, caller: Caller, new: NewBatch) -> Batch:
        """Raises ApiError for an input file that is not the caller's, or not for batches."""
        stored = await self._files.get(caller.account_id, new.input_file_id)
        if stored.purpose is not Purpose.BATCH:
            text = f"The file {stored.id} was uploaded for {stored.purpose.value}; a batch reads files with purpose 'batch'."
            raise ApiError(ErrorKind.INVALID_REQUEST, text, param="input_file_id")
        batch = Batch(
            id=f"batch_{uuid.uuid4()}",
            account_id=caller.account_id,
            key_id=caller.key_id,
            endpoint=new.endpoint,
            input_file_id=stored.id,
            window=new.window,
            window_s=new.window_s,
            status=BatchStatus.VALIDATING,
            metadata=new.metadata,
            created_at=self._clock.now(),
            currency=self._currency,
        )
        await self._database.write(insert(BATCHES).values(**_row(batch)))
        self.wakeup.call()
        return batch

    async def get(self, account_id: str | None, batch_id: str) -> Batch:
        """As it stands now. account_id: whose it must be; None for whosever it is, for an administrator.

        Raises ApiError(NOT_FOUND), also for other accounts' batches.
        """
        is_id = len(batch_id) <= 128 and batch_id.isascii() and batch_id.isprintable()
        query = _of(account_id).where(BATCHES.c.id == batch_id)
        rows = await self._database.read(query) if is_id else []
        if not rows:
            shown = batch_id[:128].encode("ascii", "replace").decode()
            raise ApiError(ErrorKind.NOT_FOUND, f"No batch found with id '{shown}'.", param="id")
        return await self._current(batch_of(rows[0]))

    async def page(self, account_id: str | None, asked: PageAsked) -> BatchesPage:
        """Newest first. account_id: as in `get`. Raises ApiError(NOT_FOUND) for an `after` that is no batch of the account's."""
        query = _of(account_id)
        if asked.name:
            query = query.where(BATCHES.c.name.contains(asked.name, autoescape=True))
        if asked.input_file_ids:
            query = query.where(BATCHES.c.input_file_id.in_(asked.input_file_ids))
        if asked.statuses:
            query = query.where(BATCHES.c.status.in_(asked.statuses))
        if asked.created_after is not None:
            query = query.where(BATCHES.c.created_at >= asked.created_after)
        if asked.created_before is not None:
            query = query.where(BATCHES.c.created_at <= asked.created_before)
        if asked.after is not None:
            last = await self.get(account_id, asked.after)
            older = BATCHES.c.created_at < last.created_at
            query = query.where(or_(older, both(BATCHES.c.created_at == last.created_at, BATCHES.c.id < last.id)))
        query = query.order_by(BATCHES.c.created_at.desc(), BATCHES.c.id.desc()).limit(asked.limit + 1)
        rows = await self._database.read(query)
        batches = tuple([await self._current(batch_of(row)) for row in rows[: asked.limit]])
        return BatchesPage(batches=batches, has_more=len(rows) > asked.limit)

    async def cancel(self, account_id: str | None, batch_id: str) -> Batch:
        """Lines that run go on to their end, no other begins. account_id: as in `get`.

        Raises ApiError(NOT_FOUND), or CONFLICT when it is over already.
        """
        await self.get(account_id, batch_id)
        may = BATCHES.c.status.in_((BatchStatus.VALIDATING.value, BatchStatus.IN_PROGRESS.value))
        values = {"status": BatchStatus.CANCELLING.value, "cancelling_at": self._clock.now()}
        await self._database.write(update(BATCHES).where(BATCHES.c.id == batch_id, may).values(**values))
        self.wakeup.call()
        batch = await self.get(account_id, batch_id)
        if batch.status is not BatchStatus.CANCELLING:
            raise ApiError(ErrorKind.CONFLICT, f"Cannot cancel a batch with status '{batch.status.value}'.")
        return batch

    async def reads(self, file_id: str) -> bool:
        """Whether a batch still needs this file."""
        query = select(BATCHES.c.id).where(BATCHES.c.input_file_id == file_id, BATCHES.c.status.in_([status.value for status in RUNNING]))
        return bool(await self._database.read(query.limit(1)))

    async def _current(self, batch: Batch) -> Batch:
        if batch.status not in RUNNING or not batch.total:
            return batch
        return with_sums(batch, await self._database.read(sums(batch.id)))


def _of(account_id: str | None) -> Select[tuple[object, ...]]:
    return select(BATCHES) if account_id is None else select(BATCHES).where(BATCHES.c.account_id == account_id)


def sums(batch_id: str):
    """The query of what a batch's lines come to so far; the index holds all of it."""
    columns = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cost_micros")
    totals = [cast(func.coalesce(func.sum(RESULTS.c[name]), 0), BigInteger).label(name) for name in columns]
    return (
        select(RESULTS.c.is_failed, func.count().label("count"), *totals)
        .where(RESULTS.c.batch_id == batch_id)
        .group_by(RESULTS.c.is_failed)
    )


def with_sums(batch: Batch, rows: list[dict[str, object]]) -> Batch:
    found = msgspec.convert(rows, list[_Sum], strict=False)
    usage = BatchUsage(
        input_tokens=sum(row.input_tokens for row in found),
        cached_tokens=sum(row.cached_tokens for row in found),
        output_tokens=sum(row.output_tokens for row in found),
        reasoning_tokens=sum(row.reasoning_tokens for row in found),
        cost_micros=sum(row.cost_micros for row in found),
    )
    completed = sum(row.count for row in found if not row.is_failed)
    failed = sum(row.count for row in found if row.is_failed)
    return msgspec.structs.replace(batch, completed=completed, failed=failed, usage=usage)


class _Sum(msgspec.Struct, frozen=True):
    is_failed: bool
    count: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_micros: int


def batch_of(row: dict[str, object]) -> Batch:
    """A row as its owner sees it."""
    parsed = {name: msgspec.json.decode(str(row[name])) for name in ("metadata", "faults", "usage")}
    return msgspec.convert({**row, **parsed}, Batch)


def _row(batch: Batch) -> dict[str, object]:
    row = msgspec.structs.asdict(batch)
    name = (batch.metadata or {}).get("ds_name", "")
    texts = {name_: _ENCODER.encode(row[name_]).decode() for name_ in ("metadata", "faults", "usage")}
    return {**row, **texts, "status": batch.status.value, "name": name, "owner": None, "lease_until": 0.0}
