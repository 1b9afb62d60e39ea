"""This is where it is told over HTTP what accounts and keys may spend, and what they have spent this month."""

from collections.abc import Mapping

from qwenbox.client.budgets import AccountBudget, BudgetsAsked, KeyBudget
from qwenbox.client.shapes import Nothing, Page
from qwenbox.gateway.accounts import Account
from qwenbox.gateway.calendar import month, month_span
from qwenbox.gateway.keys import Key
from qwenbox.server.admin import pages
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts

# Purses read by one statement; SQLite takes some 32,000 values in one.
_PURSES_AT_ONCE = 1_000


async def read(parts: AdminParts, asked: Asked[BudgetsAsked, Nothing]) -> Page[AccountBudget]:
    """Budgets, this month's spending and balances, account by account with its keys; oldest account first."""
    query = asked.query
    every = (await parts.accounts.get(query.account),) if query.account else await parts.accounts.every()
    accounts, cursor = pages.cut(tuple(every), query, lambda account: account.id)
    keys: dict[str, list[Key]] = {account.id: [] for account in accounts}
    for key in await parts.keys.every():
        if key.account_id in keys:
            keys[key.account_id].append(key)
    now = parts.clock.now()
    held = await _held(parts, [name for account in accounts for name in _names(account, keys[account.id], now)])
    return Page(items=tuple(_shown(parts, account, keys[account.id], held, now) for account in accounts), next_cursor=cursor)


def _names(account: Account, keys: list[Key], now: float) -> list[str]:
    this = month(account.time_zone, now)
    return [f"balance/{account.id}", *(f"spent/{owner}/{this}" for owner in (account.id, *(key.id for key in keys)))]


async def _held(parts: AdminParts, names: list[str]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for start in range(0, len(names), _PURSES_AT_ONCE):
        for state in await parts.ledger.load(tuple(names[start : start + _PURSES_AT_ONCE])):
            found[state.id] = state.amount_micros
    return found


def _shown(parts: AdminParts, account: Account, keys: list[Key], held: Mapping[str, int], now: float) -> AccountBudget:
    this = month(account.time_zone, now)
    told = (
        KeyBudget(
            key_id=key.id,
            name=key.name,
            is_revoked=key.revoked_at is not None,
            budget_micros=key.budget_micros,
            spent_micros=-held[f"spent/{key.id}/{this}"],
        )
        for key in keys
    )
    return AccountBudget(
        account_id=account.id,
        name=account.name,
        month=this,
        ends_at=month_span(account.time_zone, now).end_at,
        currency=parts.prices.currency,
        is_prepaid=account.is_prepaid,
        balance_micros=held[f"balance/{account.id}"],
        budget_micros=account.budget_micros,
        spent_micros=-held[f"spent/{account.id}/{this}"],
        alert_share=parts.alert_share,
        keys=tuple(key for key in told if key.spent_micros or not key.is_revoked),
    )


OPERATIONS: tuple[Operation, ...] = (operation("GET /budgets", read),)
