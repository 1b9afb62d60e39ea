"""This is where accounts are administered over HTTP: who pays, in which tier, and with what money."""

import msgspec

from qwenbox.client import shapes
from qwenbox.client.shapes import Nothing, Page, Paging
from qwenbox.gateway import accounts as gateway
from qwenbox.gateway.ledger import EntryFilter
from qwenbox.server.admin import pages
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts
from qwenbox.terms.secret import Secret


async def every(parts: AdminParts, asked: Asked[Paging, Nothing]) -> Page[shapes.Account]:
    """All accounts, oldest first."""
    found, cursor = pages.cut(await parts.accounts.every(), asked.query, lambda account: account.id)
    return Page(items=tuple(_shown(account) for account in found), next_cursor=cursor)


async def create(parts: AdminParts, asked: Asked[Nothing, shapes.NewAccount]) -> shapes.Account:
    """Make an account. 409 when the name is taken."""
    return _shown(await parts.accounts.create(msgspec.convert(msgspec.to_builtins(asked.body), gateway.NewAccount)))


async def get(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Account:
    """One account, by id or name."""
    return _shown(await parts.accounts.get(asked.path["account"]))


async def change(parts: AdminParts, asked: Asked[Nothing, shapes.AccountChange]) -> shapes.Account:
    """Change an account; running boxes know within 2 seconds."""
    wanted = msgspec.convert(msgspec.to_builtins(asked.body), gateway.AccountChange)
    return _shown(await parts.accounts.update(asked.path["account"], wanted))


async def set_password(parts: AdminParts, asked: Asked[Nothing, shapes.NewPassword]) -> None:
    """Give the account's person a password for console and admin API. Its sessions in the console end, but for the one named."""
    session = Secret(asked.body.session) if asked.body.session else None
    await parts.sign_in.set_password(asked.path["account"], Secret(asked.body.password), session)


async def top_up(parts: AdminParts, asked: Asked[Nothing, shapes.TopUp]) -> shapes.Balance:
    """Book a payment; answers with the balance after it. A `reference` told again books nothing."""
    account = await parts.accounts.get(asked.path["account"])
    state = await parts.ledger.top_up(account.id, asked.body.amount_micros, asked.body.note, asked.body.reference)
    return shapes.Balance(account_id=account.id, balance_micros=state.amount_micros)


async def adjust(parts: AdminParts, asked: Asked[Nothing, shapes.Adjustment]) -> shapes.Balance:
    """Correct the balance by hand, up or down; answers with the balance after it."""
    account = await parts.accounts.get(asked.path["account"])
    state = await parts.ledger.adjust(account.id, asked.body.amount_micros, asked.body.note, asked.body.reference)
    return shapes.Balance(account_id=account.id, balance_micros=state.amount_micros)


async def balance(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Balance:
    """What is left of what the account paid; below 0 if it owes."""
    account = await parts.accounts.get(asked.path["account"])
    return shapes.Balance(account_id=account.id, balance_micros=await parts.ledger.balance(account.id))


async def entries(parts: AdminParts, asked: Asked[Paging, Nothing]) -> Page[shapes.Entry]:
    """The account's ledger entries, newest first."""
    account = await parts.accounts.get(asked.path["account"])
    wanted = EntryFilter(account_id=account.id, limit=asked.query.limit, after=pages.read(asked.query.cursor))
    page = await parts.ledger.entries(wanted)
    items = msgspec.convert(msgspec.to_builtins(page.entries), tuple[shapes.Entry, ...])
    return Page(items=items, next_cursor=pages.write(page.next))


def _shown(account: gateway.Account) -> shapes.Account:
    return msgspec.convert(msgspec.to_builtins(account), shapes.Account)


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /accounts", every),
    operation("POST /accounts", create, status=201),
    operation("GET /accounts/{account}", get),
    operation("PATCH /accounts/{account}", change),
    operation("PUT /accounts/{account}/password", set_password, status=204),
    operation("POST /accounts/{account}/top-ups", top_up, status=201),
    operation("POST /accounts/{account}/adjustments", adjust, status=201),
    operation("GET /accounts/{account}/balance", balance),
    operation("GET /accounts/{account}/entries", entries),
)
