"""This is where usage and cost are added up by day, model, key; where a call gets its receipt; and where old calls become sums."""

import math
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import cast

import msgspec
from sqlalchemy import BigInteger, Column, ColumnElement, Table, Text, bindparam, func, select, text, tuple_, update

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database
from qwenbox.gateway import hops, pages
from qwenbox.gateway.accounts import ACCESS, CHANGES
from qwenbox.gateway.calendar import day
from qwenbox.gateway.hops import Hop
from qwenbox.gateway.journal.base import EntryKind, UsageRow
from qwenbox.gateway.journal.tables import LEDGER_ENTRIES, USAGE
from qwenbox.gateway.prices import PriceLine, recorded
from qwenbox.gateway.series import SeriesReader
from qwenbox.terms.call import Lane
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.usage import Usage

# What tells one sum of a day from another, and the sums.
_KEYS = ("day", "account_id", "key_id", "model", "deployment", "dialect", "lane", "outcome", "currency")
_SUMS = {
    "calls": "1",
    "cache_hits": "CASE WHEN is_cache_hit THEN 1 ELSE 0 END",
    "input_tokens": "input_tokens",
    "cached_tokens": "COALESCE(cached_tokens, 0)",
    "cacheable_tokens": "CASE WHEN cached_tokens IS NULL THEN 0 ELSE input_tokens END",
    "output_tokens": "output_tokens",
    "reasoning_tokens": "COALESCE(reasoning_tokens, 0)",
    "image_tokens": "COALESCE(image_tokens, 0)",
    "reusable_tokens": "COALESCE(reusable_tokens, 0)",
    "cost_micros": "cost_micros",
    # Whole numbers: sums of floats would differ with the order in which they are added.
    "duration_micros": "CAST(ROUND(duration_s * 1000000) AS BIGINT)",
    "ttft_micros": "COALESCE(CAST(ROUND(ttft_s * 1000000) AS BIGINT), 0)",
    "ttft_calls": "CASE WHEN ttft_s IS NULL THEN 0 ELSE 1 END",
}

USAGE_DAYS = Table(
    "usage_days",
    METADATA,
    *(Column(name, Text, primary_key=True) for name in _KEYS),
    *(Column(name, BigInteger, nullable=False) for name in _SUMS),
)

_KEY_LIST = ", ".join(_KEYS)
_SUM_LIST = ", ".join(_SUMS)
_TOTALS = ", ".join(f"CAST(SUM({name}) AS BIGINT) AS {name}" for name in _SUMS)
_OF_CALLS = f"SELECT {_KEY_LIST}, {', '.join(f'{sql} AS {name}' for name, sql in _SUMS.items())} FROM usage"  # noqa: S608 (all ours)

_HITS = text(f"""
SELECT CAST(SUM(calls) AS BIGINT) AS calls, CAST(SUM(hits) AS BIGINT) AS hits FROM (
SELECT COUNT(*) AS calls, COALESCE(SUM({_SUMS["cache_hits"]}), 0) AS hits FROM usage
UNION ALL SELECT COALESCE(SUM(calls), 0), COALESCE(SUM(cache_hits), 0) FROM usage_days) AS parts
""")  # noqa: S608 (all ours)

_INTO_DAYS = text(f"""
INSERT INTO usage_days ({_KEY_LIST}, {_SUM_LIST})
SELECT {_KEY_LIST}, {_TOTALS} FROM ({_OF_CALLS} WHERE id IN :ids) AS calls WHERE 1 = 1 GROUP BY {_KEY_LIST}
ON CONFLICT ({_KEY_LIST}) DO UPDATE SET {", ".join(f"{name} = usage_days.{name} + excluded.{name}" for name in _SUMS)}
""").bindparams(bindparam("ids", expanding=True))  # noqa: S608 (all ours)

# Rows that become sums in one transaction. The writers of calls wait for it: 1,000 would be 0.1 s.
_PRUNE_BATCH = 200
_PRUNE_EVERY_S = 3_600.0

# Calls that one page of filtered ones looks at: 30 ms on SQLite. An index for each filter would cost every call's row some microseconds.
MOST_LOOKED_AT = 20_000

# "YYYY-MM-DD" of a time zone begins and ends at most so long before and after it does in UTC.
_ZONES_S = 50_400.0

_ID_LENGTH = 36
_DAY_S = 86_400.0

_GROUPS = {
    "day": "day",
    "month": "SUBSTR(day, 1, 7)",
    "model": "model",
    "key": "key_id",
    "account": "account_id",
    "deployment": "deployment",
    "dialect": "dialect",
    "lane": "lane",
    "outcome": "outcome",
}


class RetentionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[retention]`. usage_days: how long single calls stay; then only their sums by day do. None: for ever. The ledger stays whole."""

    usage_days: int | None = None


class Group(StrEnum):
    """What a statement has one row for. Days and months are those of each call's account."""

    DAY = "day"
    MONTH = "month"
    MODEL = "model"
    KEY = "key"
    ACCOUNT = "account"
    DEPLOYMENT = "deployment"
    DIALECT = "dialect"
    LANE = "lane"
    OUTCOME = "outcome"


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """All calls of one group (a day, a model's name, a key's id, …) in one currency.

    cacheable_tokens: input of the calls whose engine tells how much of it it had read before; cached_tokens ⊂ it.
    reusable_tokens: input that earlier prompts had begun with, of the calls where it was looked for ([prefixes]).
    ttft_micros: over the ttft_calls that had a first delta; like duration_micros in millionths of a second.
    """

    group: str
    currency: str
    calls: int
    cache_hits: int
    input_tokens: int
    cached_tokens: int
    cacheable_tokens: int
    output_tokens: int
    reasoning_tokens: int
    image_tokens: int
    reusable_tokens: int
    cost_micros: int
    duration_micros: int
    ttft_micros: int
    ttft_calls: int

    @property
    def cached_share(self) -> float | None:
        """How much of the input the engines had read before, 0 to 1: how well these prompts share their beginnings. None: unknown."""
        return self.cached_tokens / self.cacheable_tokens if self.cacheable_tokens else None


class Hits(msgspec.Struct, frozen=True, kw_only=True):
    """hits: how many of the calls were answered from the response cache."""

    calls: int
    hits: int


class CallFilter(msgspec.Struct, frozen=True, kw_only=True):
    """since, until: days ("YYYY-MM-DD") of the account, both included. since_at <= admitted < until_at, seconds since the epoch.

    least_s: how long they took at least. id_part: a piece of the request id. after: `next` of the page before.
    """

    account_id: str | None = None
    key_id: str | None = None
    model: str | None = None
    outcome: str | None = None
    dialect: str | None = None
    since: str | None = None
    until: str | None = None
    since_at: float | None = None
    until_at: float | None = None
    least_s: float | None = None
    id_part: str | None = None
    after: str = ""
    limit: int = 100


class CallPage(msgspec.Struct, frozen=True, kw_only=True):
    """Calls, newest first. next: goes into `after`, "" on the last page; a page with room left may have one (see MOST_LOOKED_AT)."""

    calls: tuple[UsageRow, ...]
    next: str


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One call and its price, class by class. lines sum to call.cost_micros; none when nothing was billed. refunded_micros: given back.

    timeline: where its time went, () for a call of an older qwenbox.
    """

    call: UsageRow
    lines: tuple[PriceLine, ...]
    refunded_micros: int
    timeline: tuple[Hop, ...] = ()


class Statements:
    """Only reads, but for `prune`. series: the same calls over time."""

    def __init__(self, database: Database, most_looked_at: int = MOST_LOOKED_AT) -> None:
        self._database = database
        self._most_looked_at = most_looked_at
        self.series = SeriesReader(database)

    async def by(self, group: Group, since: str | None = None, until: str | None = None, account: str | None = None) -> tuple[Sums, ...]:
        """Sums in the order of the groups. since, until: days ("YYYY-MM-DD") of each call's account, both included. account: an id."""
        wanted = {"day >= :since": since, "day <= :until": until, "account_id = :account": account}
        where = " AND ".join(sql for sql, value in wanted.items() if value is not None) or "1 = 1"
        statement = text(f"""
            SELECT {_GROUPS[group.value]} AS name, currency, {_TOTALS}
            FROM ({_OF_CALLS} UNION ALL SELECT {_KEY_LIST}, {_SUM_LIST} FROM usage_days) AS calls
            WHERE {where} GROUP BY {_GROUPS[group.value]}, currency ORDER BY 1, 2
        """)  # noqa: S608 (the values are bound, the rest is ours)
        values = {"since": since, "until": until, "account": account}
        bound = statement.bindparams(**{name: value for name, value in values.items() if value is not None})
        rows = await self._database.read(bound)
        return tuple(msgspec.convert({**row, "group": row["name"]}, Sums) for row in rows)

    async def hits(self) -> Hits:
        """Of all calls there were; ten times as quick as a statement of them."""
        return msgspec.convert((await self._database.read(_HITS))[0], Hits)

    async def calls(self, wanted: CallFilter) -> CallPage:
        """Single calls, as far as retention has left them."""
        columns = USAGE.c
        start = pages.read(wanted.after) if wanted.after else None
        query = select(USAGE).where(*_filters(wanted)).order_by(columns.admitted_at.desc(), columns.id.desc()).limit(wanted.limit + 1)
        if start is not None:
            query = query.where(tuple_(columns.admitted_at, columns.id) < tuple_(*start))
        edge = await self._edge(wanted, start[0] if start else None)
        if edge is not None:
            query = query.where(columns.admitted_at > edge)
        found = msgspec.convert(await self._database.read(query), tuple[UsageRow, ...])
        shown = found[: wanted.limit]
        if len(found) > len(shown):
            return CallPage(calls=shown, next=pages.write(shown[-1].admitted_at, shown[-1].id))
        # Before every call of the next moment, so on from the edge itself.
        return CallPage(calls=shown, next="" if edge is None else pages.write(math.nextafter(edge, math.inf), ""))

    async def _edge(self, wanted: CallFilter, before: float | None) -> float | None:
        """The moment at which a page of filtered calls stops looking; None where it need not stop."""
        columns = USAGE.c
        if not _is_sparse(wanted):
            return None
        query = select(columns.admitted_at).where(*_moments(wanted)).order_by(columns.admitted_at.desc()).limit(1)
        if before is not None:
            query = query.where(columns.admitted_at <= before)
        rows = await self._database.read(query.offset(self._most_looked_at))
        edge = float(cast("float", rows[0]["admitted_at"])) if rows else None
        # So many calls of one moment are read together, else the next page would be this one.
        return None if edge is None or (before is not None and math.nextafter(edge, math.inf) >= before) else edge

    async def receipt(self, request_id: str) -> Receipt | None:
        """What one call used and cost, by the prices of its moment; None for a call that is not there (yet, or any more)."""
        rows = await self._database.read(select(USAGE).where(USAGE.c.id == request_id))
        if not rows:
            return None
        call = msgspec.convert(rows[0], UsageRow)
        refunds = select(func.coalesce(func.sum(LEDGER_ENTRIES.c.amount_micros), 0).label("micros")).where(
            LEDGER_ENTRIES.c.transaction_id == f"{EntryKind.REFUND.value}/{call.id}",
            LEDGER_ENTRIES.c.ledger_account == f"customer/{call.account_id}",
        )
        (refunded,) = await self._database.read(refunds)
        given_back = int(cast("int", refunded["micros"]))
        timeline = hops.read(call.hops, call.ttft_s)
        return Receipt(call=call, lines=await self._lines(call), refunded_micros=given_back, timeline=timeline)

    async def prune(self, before: str) -> int:
        """Make sums of all calls of days before this one ("YYYY-MM-DD"), a batch at a time; returns how many calls.

        Statements stay as they were; calls and receipts of those days are gone.
        """
        count = 0
        query = select(USAGE.c.id).where(USAGE.c.day < before).limit(_PRUNE_BATCH)
        # A row's lock, so that two workers that prune at once do it in turn and each row is added once.
        lock = update(CHANGES).where(CHANGES.c.name == ACCESS).values(number=CHANGES.c.number)
        while rows := await self._database.read(query):
            ids = [str(row["id"]) for row in rows]
            delete = USAGE.delete().where(USAGE.c.id.in_(ids))
            await self._database.write(lock, _INTO_DAYS.bindparams(ids=ids), delete)
            count += len(ids)
        return count

    async def follow(self, config: RetentionConfig, clock: Clock) -> None:
        """Prune for ever; run by whoever owns the box's background tasks. An outage is tried again."""
        while config.usage_days is not None:
            with suppress(ApiError):
                # Days are the accounts' own and differ by less than one.
                await self.prune(day("UTC", clock.now() - config.usage_days * _DAY_S))
            await clock.sleep(_PRUNE_EVERY_S)

    async def _lines(self, call: UsageRow) -> tuple[PriceLine, ...]:
        if call.cost_micros == 0:
            return ()
        tariff = await recorded(self._database, call.price_version)
        if tariff is None:
            return ()
        usage = Usage(
            input_tokens=call.input_tokens,
            output_tokens=call.output_tokens,
            cached_tokens=call.cached_tokens,
            reasoning_tokens=call.reasoning_tokens,
            image_tokens=call.image_tokens,
        )
        return tariff.lines(usage, Lane(call.lane))


def _is_sparse(wanted: CallFilter) -> bool:
    """Whether many calls in a row may be none of those that are wanted."""
    if wanted.id_part is not None and len(wanted.id_part) == _ID_LENGTH:
        return False  # found by its primary key
    filters = (wanted.account_id, wanted.key_id, wanted.model, wanted.outcome, wanted.dialect, wanted.least_s, wanted.id_part)
    return any(value is not None for value in filters)


def _filters(wanted: CallFilter) -> list[ColumnElement[bool]]:
    columns = USAGE.c
    exact = {
        columns.account_id: wanted.account_id,
        columns.key_id: wanted.key_id,
        columns.model: wanted.model,
        columns.outcome: wanted.outcome,
        columns.dialect: wanted.dialect,
    }
    found = [*_moments(wanted), *(column == value for column, value in exact.items() if value is not None)]
    if wanted.least_s is not None:
        found.append(columns.duration_s >= wanted.least_s)
    if wanted.id_part is not None:
        found.append(
            columns.id == wanted.id_part if len(wanted.id_part) == _ID_LENGTH else columns.id.contains(wanted.id_part, autoescape=True)
        )
    if wanted.since is not None:
        found.append(columns.day >= wanted.since)
    if wanted.until is not None:
        found.append(columns.day <= wanted.until)
    return found


def _moments(wanted: CallFilter) -> list[ColumnElement[bool]]:
    """When the calls can have been admitted, for the index by time."""
    at = USAGE.c.admitted_at
    firsts = [
        *([] if wanted.since_at is None else [wanted.since_at]),
        *([] if wanted.since is None else [_midnight(wanted.since) - _ZONES_S]),
    ]
    ends = [*([] if wanted.until_at is None else [wanted.until_at])]
    ends += [] if wanted.until is None else [_midnight(wanted.until) + _DAY_S + _ZONES_S]
    return [*([at >= max(firsts)] if firsts else []), *([at < min(ends)] if ends else [])]


def _midnight(day: str) -> float:
    """Raises ApiError(INVALID_REQUEST) for a day that no calendar has."""
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"{day!r} is no day.", param="since") from error
