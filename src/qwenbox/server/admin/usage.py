"""This is where usage and cost are told over HTTP: statements, single calls, receipts."""

import msgspec

from qwenbox.client import spreadsheets
from qwenbox.client.shapes import Balance, Nothing, Page
from qwenbox.client.usage import Call, CallsAsked, Receipt, Refund, Statement, UsageAsked, UsageSum
from qwenbox.gateway.journal.base import UsageRow
from qwenbox.gateway.statements import CallFilter, Group
from qwenbox.server import receipts
from qwenbox.server.admin import pages
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts
from qwenbox.terms.errors import ApiError, ErrorKind

# Calls in one file, and how many of them are made into lines before other work has its turn.
MOST_CSV_CALLS = 10_000
_CSV_BATCH = 500


async def statement(parts: AdminParts, asked: Asked[UsageAsked, Nothing]) -> Statement:
    """Calls, tokens and cost, added up by day, month, model, key, account, …"""
    query = asked.query
    account = await _account_id(parts, query.account)
    sums = await parts.statements.by(Group(query.by), query.since, query.until, account)
    return Statement(by=query.by, rows=tuple(UsageSum(**msgspec.structs.asdict(row)) for row in sums))


async def statement_csv(parts: AdminParts, asked: Asked[UsageAsked, Nothing]) -> str:
    """The same as CSV with a header; money in integer millionths."""
    told = await statement(parts, asked)
    return spreadsheets.rows([(told.by, *UsageSum.__struct_fields__[1:]), *(msgspec.structs.astuple(row) for row in told.rows)])


async def calls(parts: AdminParts, asked: Asked[CallsAsked, Nothing]) -> Page[Call]:
    """Single calls, newest first, as far as retention has left them."""
    page = await parts.statements.calls(await _wanted(parts, asked.query))
    return Page(items=tuple(_shown(call) for call in page.calls), next_cursor=pages.write(page.next))


async def calls_csv(parts: AdminParts, asked: Asked[CallsAsked, Nothing]) -> str:
    """The same as CSV with a header, the newest 10,000 of those that are wanted; `limit` is not heeded. `until_at` goes on.

    Money in integer millionths, times in seconds since the epoch.
    """
    wanted = msgspec.structs.replace(await _wanted(parts, asked.query), limit=_CSV_BATCH)
    names, count = [name for name in UsageRow.__struct_fields__ if name != "hops"], 0
    texts = [spreadsheets.rows([names])]
    while count < MOST_CSV_CALLS:
        page = await parts.statements.calls(wanted)
        texts.append(spreadsheets.rows([[getattr(call, name) for name in names] for call in page.calls]))
        count += len(page.calls)
        if not page.next:
            break
        wanted = msgspec.structs.replace(wanted, after=page.next)
    return "".join(texts)


async def _wanted(parts: AdminParts, query: CallsAsked) -> CallFilter:
    return CallFilter(
        account_id=await _account_id(parts, query.account),
        key_id=(await parts.keys.get(query.key)).id if query.key else None,
        model=query.model or None,
        outcome=query.outcome,
        dialect=query.dialect or None,
        since=query.since,
        until=query.until,
        since_at=query.since_at,
        until_at=query.until_at,
        least_s=query.least_s,
        id_part=query.request_id.removeprefix("chatcmpl-").lower() or None,
        after=pages.read(query.cursor),
        limit=query.limit,
    )


async def receipt(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Receipt:
    """What one call used and cost, class by class, by its request id."""
    request_id = asked.path["request_id"]
    found = await parts.statements.receipt(request_id)
    if found is None:
        raise ApiError(ErrorKind.NOT_FOUND, f"No call has the request id {request_id!r}.", param="request_id")
    return receipts.shown(found)


async def refund(parts: AdminParts, asked: Asked[Nothing, Refund]) -> Balance:
    """Give a call's whole cost back to the balance, once; answers with the balance after it."""
    found = await receipt(parts, Asked(path=asked.path, query=Nothing(), body=Nothing()))
    state = await parts.ledger.refund(found.call.id, asked.body.note)
    return Balance(account_id=found.call.account_id, balance_micros=state.amount_micros)


async def _account_id(parts: AdminParts, account: str) -> str | None:
    return (await parts.accounts.get(account)).id if account else None


def _shown(call: UsageRow) -> Call:
    return msgspec.convert({**msgspec.to_builtins(call), "notes": msgspec.json.decode(call.notes)}, Call)


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /usage", statement),
    operation("GET /usage.csv", statement_csv, media_type="text/csv; charset=utf-8"),
    operation("GET /usage/calls", calls),
    operation("GET /usage/calls.csv", calls_csv, media_type="text/csv; charset=utf-8"),
    operation("GET /receipts/{request_id}", receipt),
    operation("POST /receipts/{request_id}/refund", refund, status=201),
)
