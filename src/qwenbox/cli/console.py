"""This is where a command speaks to people (`out`, `err`) and to scripts (`emit`)."""

from collections.abc import Generator
from contextlib import contextmanager

import msgspec
import typer
from rich.console import Console

from qwenbox.config import Config, ConfigError, load
from qwenbox.terms.errors import ApiError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def emit(value: object) -> None:
    """One line of JSON on standard output, for `--json`."""
    out.out(msgspec.json.encode(value).decode())


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
