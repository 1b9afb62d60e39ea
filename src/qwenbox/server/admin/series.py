"""This is where calls over time are told over HTTP."""

import math

import msgspec

from qwenbox.client.series import MOST_STEPS, Series, SeriesAsked
from qwenbox.client.shapes import Nothing
from qwenbox.gateway import series
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts
from qwenbox.terms.errors import ApiError, ErrorKind

_SPAN_S = 3_600.0
_STEPS = 60


async def read(parts: AdminParts, asked: Asked[SeriesAsked, Nothing]) -> Series:
    """Calls, errors, tokens, cost, cache hits and how quick answers were, step by step.

    Calls that were refused before they were admitted (an unknown key, a limit) have no row and are not counted here; /metrics counts them.
    """
    query = asked.query
    since, until, step_s = _span(query, parts.clock.now())
    if since >= until:
        raise ApiError(ErrorKind.INVALID_REQUEST, "`since` must be before `until`.", param="since")
    if (until - since) / step_s > MOST_STEPS:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"At most {MOST_STEPS} steps: make `step_s` longer.", param="step_s")
    wanted = series.SeriesAsked(
        since=since,
        until=until,
        step_s=step_s,
        account_id=(await parts.accounts.get(query.account)).id if query.account else None,
        key_id=(await parts.keys.get(query.key)).id if query.key else None,
        model=query.model or None,
    )
    found = await parts.statements.series.read(wanted)
    values = msgspec.to_builtins(found)
    return msgspec.convert({**values, "until": until, "step_s": step_s, "currency": parts.prices.currency}, Series)


def _span(query: SeriesAsked, now: float) -> tuple[float, float, float]:
    """From, to, and how long a step is."""
    if query.last_s is not None:
        if query.since is not None or query.until is not None:
            raise ApiError(ErrorKind.INVALID_REQUEST, "`last_s` stands for `since` and `until`.", param="last_s")
        step_s = min(query.step_s or query.last_s / _STEPS, query.last_s)
        until = math.ceil(now / step_s) * step_s
        return until - math.ceil(query.last_s / step_s) * step_s, until, step_s
    until = now if query.until is None else query.until
    since = until - _SPAN_S if query.since is None else query.since
    return since, until, (until - since) / _STEPS if query.step_s is None else query.step_s


OPERATIONS: tuple[Operation, ...] = (operation("GET /series", read),)
