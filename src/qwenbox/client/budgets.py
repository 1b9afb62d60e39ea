"""This is where what accounts and keys may spend, and have spent this month, has its shape in the admin API."""

from qwenbox.client.shapes import Paging, Text, Told


class BudgetsAsked(Paging, frozen=True, kw_only=True):
    """account: only the account of this id or name."""

    account: Text = ""


class KeyBudget(Told, frozen=True, kw_only=True):
    """One key's month. budget_micros: null without end, and then only the account's counts."""

    key_id: str
    name: str
    is_revoked: bool
    budget_micros: int | None
    spent_micros: int


class AccountBudget(Told, frozen=True, kw_only=True):
    """One account's month, and its keys': those that can be used, and those that were used up to being revoked.

    month: "YYYY-MM" in the account's own time zone; it ends at ends_at. balance_micros: what is left of its payments.
    alert_share: the share of a budget past which the box warns, 0 to 1.
    """

    account_id: str
    name: str
    month: str
    ends_at: float
    currency: str
    is_prepaid: bool
    balance_micros: int
    budget_micros: int | None
    spent_micros: int
    alert_share: float
    keys: tuple[KeyBudget, ...]
