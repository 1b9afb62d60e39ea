"""This is where a command speaks to people (`out`, `err`) and to scripts (`emit`)."""

from collections.abc import Generator
from contextlib import contextmanager

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from qwenbox.config import Config, ConfigError, load
from qwenbox.terms.errors import ApiError

_WIDEST = 1_000

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def emit(value: object) -> None:
    """One line of JSON on standard output, for `--json`."""
    out.out(msgspec.json.encode(value).decode())


def lay_out(table: Table) -> None:
    """Print a table as wide as it is: a narrow terminal breaks its lines, which is better than cells nobody can read or copy."""
    widest = Console(width=_WIDEST).measure(table).maximum
    Console(file=out.file, highlight=False, width=max(out.width, widest)).print(table)


def settings(overrides: dict[str, object] | None = None) -> Config:
    """The configuration, or one clear line and exit status 2."""
    try:
        return load(overrides)
    except ConfigError as error:
        err.print(str(error), style="red", markup=False)
        raise typer.Exit(2) from error


@contextmanager
def told() -> Generator[None]:
    """What goes wrong inside is one clear line and exit status 1."""
    try:
        yield
    except ApiError as error:
        err.print(error.message or error.kind.value, style="red", markup=False)
        raise typer.Exit(1) from error
    except ConfigError as error:
        err.print(str(error), style="red", markup=False)
        raise typer.Exit(2) from error
