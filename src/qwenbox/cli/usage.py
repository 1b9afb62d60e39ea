"""This is where usage and cost are shown on the command line: statements as table, CSV, JSON or plot; receipts; single calls."""

from datetime import date
from typing import Annotated

import typer
from rich.bar import Bar
from rich.table import Table

from qwenbox.cli.administration import Json, Url, ask
from qwenbox.cli.amounts import shown, units
from qwenbox.cli.console import emit, lay_out, out
from qwenbox.client.admin import AdminClient
from qwenbox.client.shapes import Page
from qwenbox.client.usage import Call, CallsAsked, Group, OutcomeName, Receipt, Statement, UsageAsked, UsageSum

app = typer.Typer(
    help="What was used and what it cost, by day, month, model, key or account; receipts of single calls.\n\n"
    "    qwenbox usage --by model --since 2026-11-01\n\n"
    "    qwenbox usage --plot\n\n"
    "    qwenbox usage --by key --csv > november.csv\n\n"
    "    qwenbox usage receipt 2f1c…",
    rich_markup_mode="markdown",
)

Since = Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD, of each account's own time zone.", show_default=False)]
Until = Annotated[str | None, typer.Option(help="Last day, included.", show_default=False)]
Account = Annotated[str, typer.Option(help="Only this account, by name or id.", show_default=False)]


@app.callback(invoke_without_command=True)
def usage(
    context: typer.Context,
    by: Annotated[Group, typer.Option(help="One row for each.")] = "day",
    since: Since = None,
    until: Until = None,
    account: Account = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, money in millionths.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw cost, or tokens where nothing costs, as bars.")] = False,
    as_json: Json = False,
    url: Url = "",
) -> None:
    """Add up usage and cost."""
    if context.invoked_subcommand is not None:
        return
    asked = UsageAsked(by=by, since=_day(since), until=_day(until), account=account)
    if as_csv:
        out.out(ask(url, lambda admin: admin.usage_csv(asked)), end="")
        return
    told, names = ask(url, lambda admin: _named(admin, asked))
    if as_json:
        emit(told)
    elif not told.rows:
        out.print("No calls yet.")
    else:
        out.print(_plot(told, names) if plot else _table(told, names))


@app.command()
def receipt(
    request_id: Annotated[str, typer.Argument(help="As the answer's `request_id` or `x-request-id` header names it.")],
    as_json: Json = False,
    url: Url = "",
) -> None:
    """Show what one call used and cost, class by class.

    Example: `qwenbox usage receipt 2f1c7a52-6f39-4b0a-9d3c-0a9f1b6c5e77`
    """

    async def work(admin: AdminClient) -> tuple[Receipt, str]:
        found = await admin.receipt(request_id.removeprefix("chatcmpl-"))
        return found, (await admin.account(found.call.account_id)).time_zone

    found, zone = ask(url, work)
    if as_json:
        emit(found)
        return
    call = found.call
    out.print(f"[bold]{call.id}[/bold]  {shown(call.arrived_at, zone)} {zone}")
    out.print(f"{call.model} on {call.deployment}, {call.outcome}, {call.duration_s:.2f} s, account {call.account_id}, key {call.key_id}")
    if call.reusable_tokens is not None:
        reused = "how much was, the engine does not tell" if call.cached_tokens is None else f"{call.cached_tokens:,} were reused"
        out.print(f"of {call.input_tokens:,} input tokens {call.reusable_tokens:,} could be reused, {reused}")
    table = Table("", box=None)
    for name in ("tokens", "per million", call.currency):
        table.add_column(name, justify="right")
    for line in found.lines:
        table.add_row(line.kind, f"{line.tokens:,}", units(line.price_micros), units(line.amount_micros))
    if not found.lines:
        table.add_row("input", f"{call.input_tokens:,}", "", "")
        table.add_row("output", f"{call.output_tokens:,}", "", "")
    table.add_row("[bold]cost[/bold]", "", "", f"[bold]{units(call.cost_micros)}[/bold]")
    if found.refunded_micros:
        table.add_row("refunded", "", "", units(-found.refunded_micros))
    lay_out(table)
    if call.price_version:
        out.print(f"prices {call.price_version}", style="dim")


@app.command()
def calls(
    account: Account = "",
    key: Annotated[str, typer.Option(help="Only this key, by name or id.", show_default=False)] = "",
    model: Annotated[str, typer.Option(help="Only this model.", show_default=False)] = "",
    outcome: Annotated[OutcomeName | None, typer.Option(help="Only calls that ended so.", show_default=False)] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(help="How many.", min=1, max=1_000)] = 50,
    cursor: Annotated[str, typer.Option(help="Go on where a list ended.", show_default=False)] = "",
    as_json: Json = False,
    url: Url = "",
) -> None:
    """List single calls, newest first.

    Example: `qwenbox usage calls --key ci --outcome failed --since 2026-11-01`
    """
    asked = CallsAsked(
        account=account, key=key, model=model, outcome=outcome, since=_day(since), until=_day(until), limit=limit, cursor=cursor
    )
    page: Page[Call] = ask(url, lambda admin: admin.calls(asked))
    if as_json:
        emit(page)
        return
    table = Table("request id", "when (UTC)", "model", "outcome", box=None)
    for name in ("input", "output", "cost", "seconds"):
        table.add_column(name, justify="right")
    for call in page.items:
        amounts = (f"{call.input_tokens:,}", f"{call.output_tokens:,}", units(call.cost_micros), f"{call.duration_s:.2f}")
        table.add_row(call.id, shown(call.admitted_at), call.model, call.outcome, *amounts)
    lay_out(table)
    if page.next_cursor:
        out.print(f"More: --cursor {page.next_cursor}", style="dim")


@app.command()
def check(as_json: Json = False, url: Url = "") -> None:
    """Add up the books: entries, balances, budgets, calls. Exit status 1 when something does not add up."""
    told = ask(url, lambda admin: admin.check_ledger())
    if as_json:
        emit(told)
    elif told.is_good:
        out.print("The books add up.")
    for problem in () if as_json else told.problems:
        out.print(problem, style="red", markup=False)
    if not told.is_good:
        raise typer.Exit(1)


async def _named(admin: AdminClient, asked: UsageAsked) -> tuple[Statement, dict[str, str]]:
    """The statement, and what people call its groups."""
    told, names = await admin.usage(asked), dict[str, str]()
    if asked.by == "account":
        names = {account.id: account.name for account in await admin.accounts()}
    elif asked.by == "key":
        names = {key.id: key.name for key in await admin.keys()}
    return told, names


def _table(told: Statement, names: dict[str, str]) -> Table:
    table = Table(told.by, box=None, show_footer=True)
    columns = {
        "calls": [f"{row.calls:,}" for row in told.rows],
        "input": [f"{row.input_tokens:,}" for row in told.rows],
        "reusable": [f"{row.reusable_tokens:,}" for row in told.rows],
        "cached": [f"{row.cached_tokens:,}" for row in told.rows],
        "output": [f"{row.output_tokens:,}" for row in told.rows],
        "cost": [f"{units(row.cost_micros)} {row.currency}" for row in told.rows],
    }
    if not any(row.reusable_tokens for row in told.rows):
        del columns["reusable"]
    for name in columns:
        table.add_column(name, justify="right", footer=_total(told.rows, name))
    for number, row in enumerate(told.rows):
        table.add_row(_label(row, names), *(cells[number] for cells in columns.values()))
    return table


def _total(rows: tuple[UsageSum, ...], column: str) -> str:
    if column == "cost":
        costs: dict[str, int] = {}
        for row in rows:
            costs[row.currency] = costs.get(row.currency, 0) + row.cost_micros
        return " + ".join(f"{units(amount)} {currency}" for currency, amount in costs.items())
    field = "calls" if column == "calls" else f"{column}_tokens"
    return f"{sum(getattr(row, field) for row in rows):,}"


def _plot(told: Statement, names: dict[str, str]) -> Table:
    """A bar for each row: its cost, or its tokens where nothing costs."""
    is_money = any(row.cost_micros for row in told.rows)
    sizes = [row.cost_micros if is_money else row.input_tokens + row.output_tokens for row in told.rows]
    most = max(*sizes, 1)
    table = Table(told.by, "cost" if is_money else "tokens", "", box=None)
    for row, size in zip(told.rows, sizes, strict=True):
        amount = f"{units(size)} {row.currency}" if is_money else f"{size:,}"
        table.add_row(_label(row, names), amount, Bar(most, 0, size, width=50, color="cyan"))
    return table


def _label(row: UsageSum, names: dict[str, str]) -> str:
    return f"{names[row.group]} ({row.group})" if row.group in names else row.group


def _day(text: str | None) -> str | None:
    try:
        return None if text is None else date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no day; write YYYY-MM-DD") from error
