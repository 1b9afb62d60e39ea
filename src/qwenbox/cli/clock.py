"""This is where the time of a box that was started for testing is told and moved from the command line."""

from typing import Annotated

import typer

from qwenbox.cli.administration import Json, Url, ask
from qwenbox.cli.amounts import seconds, shown
from qwenbox.cli.console import emit, out
from qwenbox.client.shapes import ClockState

app = typer.Typer(
    help="The box's time, for testing your own handling of limits, budgets and expiry. Only for a box started with QWENBOX_TESTING=1.\n\n"
    "For instance: use up a limit, skip its window, and the next call passes:\n\n"
    "    qwenbox clock advance 60s",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
def show(as_json: Json = False, url: Url = "") -> None:
    """Tell the box's time."""
    _told(ask(url, lambda admin: admin.clock()), as_json)


@app.command()
def advance(
    by: Annotated[str, typer.Argument(help="How far: 60s, 90m, 12h, 30d.")],
    as_json: Json = False,
    url: Url = "",
) -> None:
    """Move the box's time forward; it never goes back. All its processes follow within a second.

    Examples: `qwenbox clock advance 60s` passes a window, `qwenbox clock advance 31d` a month's budget.
    """
    span_s = seconds(by)
    _told(ask(url, lambda admin: admin.advance_clock(span_s)), as_json)


def _told(state: ClockState, as_json: bool) -> None:
    if as_json:
        emit(state)
    else:
        out.print(f"The box's time is {shown(state.now_at)} UTC, {state.offset_s:g} s ahead.")
