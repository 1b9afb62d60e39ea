"""This is where counters that begin anew learn of calls that are over: what the last window holds, and how a dead process's calls ended."""

import msgspec
from sqlalchemy import case, select

from qwenbox.db import Database
from qwenbox.gateway.journal.tables import USAGE
from qwenbox.terms.call import Lane

# A hit of the response cache tells the tokens of the call that it repeats, but uses none.
_TOKENS = case((USAGE.c.is_cache_hit, 0), else_=USAGE.c.input_tokens + USAGE.c.output_tokens)


class RecentCall(msgspec.Struct, frozen=True, kw_only=True):
    """tokens: input + output, as far as they count. admitted_at: seconds since the epoch."""

    id: str
    key_id: str
    model: str
    admitted_at: float
    tokens: int


class Recent:
    """Reads usage rows for the counters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, at: float) -> tuple[RecentCall, ...]:
        """People's calls admitted at or after `at`, oldest first; batch lines are exempt from limits."""
        columns = USAGE.c
        tokens = _TOKENS.label("tokens")
        query = select(columns.id, columns.key_id, columns.model, columns.admitted_at, tokens)
        query = query.where(columns.admitted_at >= at, columns.lane == Lane.INTERACTIVE.value).order_by(columns.admitted_at)
        return msgspec.convert(await self._database.read(query), tuple[RecentCall, ...])

    async def used(self, request_ids: tuple[str, ...]) -> dict[str, int]:
        """Tokens of those of the calls that have a row."""
        columns = USAGE.c
        tokens = _TOKENS.label("tokens")
        rows = await self._database.read(select(columns.id, tokens).where(columns.id.in_(request_ids)))
        return {row.id: row.tokens for row in msgspec.convert(rows, list[_Used])}


class _Used(msgspec.Struct, frozen=True):
    id: str
    tokens: int
