"""This is where a command line finds its command."""

from typing import Annotated

import typer

from qwenbox import __version__
from qwenbox.cli import accounts, cache, clock, keys, models, usage
from qwenbox.cli.backup import backup, restore
from qwenbox.cli.batch import command as batch
from qwenbox.cli.chat import chat
from qwenbox.cli.console import out
from qwenbox.cli.doctor import doctor
from qwenbox.cli.init import init
from qwenbox.cli.open_console import console
from qwenbox.cli.pull import pull
from qwenbox.cli.serve import serve
from qwenbox.cli.tokens import tokens

app = typer.Typer(
    name="qwenbox",
    help="The Qwen API on your own machine: code for dashscope or openai runs against it unchanged.",
    epilog="Start with `qwenbox serve`, then copy the two export lines it prints. All state lives in QWENBOX_HOME (~/.qwenbox).",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)
app.command()(init)
app.command()(serve)
app.command()(pull)
app.command()(console)
app.command()(chat)
app.command()(tokens)
app.command()(doctor)
app.command()(backup)
app.command()(restore)
app.add_typer(batch.app, name="batch")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(accounts.app, name="accounts")
app.add_typer(usage.app, name="usage")
app.add_typer(cache.app, name="cache")
app.add_typer(clock.app, name="clock")


def _version(is_asked: bool) -> None:
    if is_asked:
        out.print(f"qwenbox {__version__}")
        raise typer.Exit


@app.callback()
def qwenbox(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """The Qwen API on your own machine."""
