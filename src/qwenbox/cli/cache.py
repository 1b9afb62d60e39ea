"""This is where the response cache is looked at and emptied from the command line."""

from typing import Annotated

import typer
from rich.table import Table

from qwenbox.cli.administration import Json, Url, ask
from qwenbox.cli.amounts import shown
from qwenbox.cli.console import emit, lay_out, out
from qwenbox.client.shapes import CachePurge, CacheState

app = typer.Typer(
    help="Answers that are kept and given again; settings are in `[cache]` of qwenbox.toml, and a policy in each key.\n\n"
    "    qwenbox cache stats\n\n"
    "    qwenbox cache purge --model qwen-turbo",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
def stats(as_json: Json = False, url: Url = "") -> None:
    """Tell what is kept, and how many calls were answered from it.

    Example: `qwenbox cache stats --json`
    """
    told = ask(url, lambda admin: admin.cache())
    if as_json:
        emit(told)
        return
    table = Table("", "", box=None, show_header=False)
    for name, value in _lines(told):
        table.add_row(name, value)
    lay_out(table)


@app.command()
def purge(
    account: Annotated[str, typer.Option(help="Only this account's answers, by name or id.", show_default=False)] = "",
    model: Annotated[str, typer.Option(help="Only this model's answers.", show_default=False)] = "",
    as_json: Json = False,
    url: Url = "",
) -> None:
    """Forget kept answers; a running box follows within a second.

    Example: `qwenbox cache purge --account team-a`
    """
    told = ask(url, lambda admin: admin.purge_cache(CachePurge(account=account, model=model)))
    if as_json:
        emit(told)
    else:
        out.print(f"{told.entries:,} kept answers are forgotten.")


def _lines(told: CacheState) -> tuple[tuple[str, str], ...]:
    share = f" ({told.hits / told.calls:.1%})" if told.calls else ""
    return (
        ("state", "on" if told.is_enabled else "off"),
        ("kept in", f"{told.place}, shared within the {told.scope}, for {told.ttl_s:,.0f} s"),
        ("answers", f"{told.entries:,}"),
        ("size", f"{told.bytes / 2**20:,.1f} of {told.most_bytes / 2**20:,.0f} MiB"),
        ("oldest", f"{shown(told.oldest_at)} UTC" if told.oldest_at is not None else "none"),
        ("hits", f"{told.hits:,} of {told.calls:,} calls{share}"),
    )
