"""This is where accounts are made, shown and paid for from the command line, beside a running box or without one."""

import sys
from typing import Annotated

import typer
from msgspec import UNSET
from rich.table import Table

from qwenbox.cli.administration import Json, Url, ask
from qwenbox.cli.amounts import NONE, micros, shown, units
from qwenbox.cli.console import emit, lay_out, out
from qwenbox.client.admin import AdminClient
from qwenbox.client.shapes import Account, AccountChange, Adjustment, Balance, Entry, Key, NewAccount, Paging, RoleName, TopUp
from qwenbox.terms.secret import Secret

app = typer.Typer(
    help="Accounts: who pays, in which tier, with which budget. Works with and without a running box.\n\n"
    "For instance a prepaid account with its own key:\n\n"
    "    qwenbox accounts create alice --prepaid --tier standard --time-zone Asia/Shanghai\n\n"
    "    qwenbox accounts topup alice 100\n\n"
    "    qwenbox keys create alice-laptop --account alice",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Which = Annotated[str, typer.Argument(help="The account's name or id.")]
Tier = Annotated[str | None, typer.Option(help="A `[tier.NAME]` of the settings, e.g. free, standard, premium.", show_default=False)]
Zone = Annotated[str | None, typer.Option("--time-zone", help="Whose days and months count, e.g. Asia/Shanghai.", show_default=False)]
Prepaid = Annotated[
    bool | None,
    typer.Option("--prepaid/--postpaid", help="Prepaid: calls are refused once the balance is used up.", show_default=False),
]
Budget = Annotated[str | None, typer.Option(help="What it may spend in a month, in units: 12.50.", show_default=False)]
Role = Annotated[RoleName | None, typer.Option(help="`admin` may use console and admin API with its password.", show_default=False)]
Amount = Annotated[str, typer.Argument(help="In units of the currency: 12.50.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What people call it.")],
    tier: Tier = None,
    time_zone: Zone = None,
    prepaid: Prepaid = None,
    budget: Budget = None,
    role: Role = None,
    as_json: Json = False,
    url: Url = "",
) -> None:
    """Make an account.

    Example: `qwenbox accounts create alice --tier standard --prepaid --budget 200`
    """
    wanted = NewAccount(
        name=name,
        role=role or "member",
        tier=tier or "",
        time_zone=time_zone or "UTC",
        is_prepaid=bool(prepaid),
        budget_micros=None if budget is None else micros(budget),
    )
    account = ask(url, lambda admin: admin.create_account(wanted))
    if as_json:
        emit(account)
    else:
        out.print(f"Account [bold]{account.id}[/bold] ({account.name}). A key for it: qwenbox keys create --account {account.name}")


@app.command("list")
def list_accounts(as_json: Json = False, url: Url = "") -> None:
    """List all accounts and what is left of their payments."""

    async def work(admin: AdminClient) -> list[tuple[Account, Balance]]:
        return [(account, await admin.balance(account.id)) for account in await admin.accounts()]

    rows = ask(url, work)
    if as_json:
        emit([account for account, _ in rows])
        return
    table = Table("id", "name", "role", "tier", "time zone", "pays", "budget a month", box=None)
    table.add_column("balance", justify="right")
    for account, balance in rows:
        budget = "" if account.budget_micros is None else units(account.budget_micros)
        pays, left = "before" if account.is_prepaid else "after", units(balance.balance_micros)
        table.add_row(account.id, account.name, account.role, account.tier or "default", account.time_zone, pays, budget, left)
    lay_out(table)


@app.command()
def show(account: Which, as_json: Json = False, url: Url = "") -> None:
    """Show an account: settings, balance, keys and its latest bookings."""

    async def work(admin: AdminClient) -> tuple[Account, Balance, tuple[Key, ...], tuple[Entry, ...]]:
        found = await admin.account(account)
        page = await admin.entries(found.id, Paging(limit=10))
        return found, await admin.balance(found.id), await admin.keys(found.id), page.items

    found, balance, keys, entries = ask(url, work)
    if as_json:
        emit({"account": found, "balance": balance, "keys": keys, "entries": entries})
        return
    budget = "none" if found.budget_micros is None else f"{units(found.budget_micros)} a month"
    pays = "before" if found.is_prepaid else "after"
    out.print(f"[bold]{found.name}[/bold] ({found.id}), {found.role}, tier {found.tier or 'default'}, time zone {found.time_zone}")
    out.print(f"balance {units(balance.balance_micros)}, budget {budget}, pays {pays} use")
    out.print(f"keys: {', '.join(f'{key.name} ({key.id})' for key in keys if key.revoked_at is None) or 'none'}\n")
    table = Table("when", "what", box=None)
    table.add_column("amount", justify="right")
    table.add_column("note")
    for entry in entries:
        table.add_row(shown(entry.at, found.time_zone), entry.kind, units(entry.amount_micros), entry.note or entry.transaction_id)
    lay_out(table)


@app.command("set")
def set_account(
    account: Which,
    name: Annotated[str | None, typer.Option(help="Another name.", show_default=False)] = None,
    tier: Tier = None,
    time_zone: Zone = None,
    prepaid: Prepaid = None,
    budget: Budget = None,
    role: Role = None,
    as_json: Json = False,
    url: Url = "",
) -> None:
    """Change an account; what is not named stays, `none` takes tier or budget away. Running boxes know within 2 seconds.

    Example: `qwenbox accounts set alice --tier premium --budget none`
    """
    change = AccountChange(
        name=UNSET if name is None else name,
        role=UNSET if role is None else role,
        tier=UNSET if tier is None else "" if tier == NONE else tier,
        time_zone=UNSET if time_zone is None else time_zone,
        is_prepaid=UNSET if prepaid is None else prepaid,
        budget_micros=UNSET if budget is None else None if budget == NONE else micros(budget),
    )
    changed = ask(url, lambda admin: admin.change_account(account, change))
    if as_json:
        emit(changed)
    else:
        out.print(f"Changed {changed.id} ({changed.name}).")


@app.command()
def topup(
    account: Which,
    amount: Amount,
    note: Annotated[str, typer.Option(help="Goes into the ledger.")] = "",
    reference: Annotated[str, typer.Option(help="The payment's own id: told again, it counts once.")] = "",
    as_json: Json = False,
    url: Url = "",
) -> None:
    """Book a payment.

    Example: `qwenbox accounts topup alice 100 --reference invoice-2026-17`
    """
    payment = TopUp(amount_micros=micros(amount), note=note, reference=reference)
    _told(ask(url, lambda admin: admin.top_up(account, payment)), as_json)


@app.command()
def adjust(
    account: Which,
    amount: Amount,
    note: Annotated[str, typer.Option(help="Why; goes into the ledger.", prompt=True)],
    as_json: Json = False,
    url: Url = "",
) -> None:
    """Correct the balance by hand.

    Example, taking 3 units away: `qwenbox accounts adjust alice --note "typo in invoice 17" -- -3`
    """
    correction = Adjustment(amount_micros=micros(amount), note=note)
    _told(ask(url, lambda admin: admin.adjust(account, correction)), as_json)


@app.command()
def password(account: Which, url: Url = "") -> None:
    """Give the account's person a password, asked for twice; from a pipe, its first line is taken.

    With it and the role `admin`, that person gets into console and admin API: `qwenbox accounts set alice --role admin`
    """
    if sys.stdin.isatty():
        text = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        text = sys.stdin.readline().rstrip("\r\n")
    ask(url, lambda admin: admin.set_password(account, Secret(text)))
    out.print("Set.")


def _told(balance: Balance, as_json: bool) -> None:
    if as_json:
        emit(balance)
    else:
        out.print(f"Booked. Balance: {units(balance.balance_micros)}.")
