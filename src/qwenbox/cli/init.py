"""This is where a new box gets its qwenbox.toml: three questions, or flags in their place."""

import os
import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from qwenbox.cli.console import err, out, told
from qwenbox.cli.first_settings import Answers, Purpose, text
from qwenbox.config import USER_FILES, ConfigError, load
from qwenbox.db import address_of
from qwenbox.server.admin.guard import is_loopback

_FILE = USER_FILES[-1]
_LOOPBACK = "127.0.0.1"
_EVERYWHERE = "0.0.0.0"  # noqa: S104 (a team's default, and the caller may say otherwise)
_PORT = 8000
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")

_PURPOSES = """[bold]1.[/bold] What is this box for?
  laptop   your own programs, on this machine
  team     several people, on weights of this machine
  cloud    in front of the real service (Model Studio): your keys, limits, cache and books"""
_DATA = "[bold]2.[/bold] Where does its data live? A folder, or the URL of a PostgreSQL database (postgresql://user:password@host/name)."
_ADDRESS = "[bold]3.[/bold] Where does it listen? A port, or address:port; 0.0.0.0 is every network this machine is in."


class _Wrong(Exception):
    """An answer that cannot be; the message says what to write instead."""


def init(
    purpose: Annotated[Purpose | None, typer.Option("--for", help="What the box is for.", show_default="asked, or laptop")] = None,
    data: Annotated[
        str | None, typer.Option(help="The data folder, or the URL of a database.", show_default="asked, or QWENBOX_HOME, or ~/.qwenbox")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Port, or address:port.", show_default="asked, or 127.0.0.1:8000; 0.0.0.0:8000 for a team")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: what no flag says is as by default.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a qwenbox.toml that is there.")] = False,
) -> None:
    """Write a qwenbox.toml that explains itself: three questions, or flags in their place."""
    purpose = purpose or (Purpose.LAPTOP if yes else Purpose(_ask(_PURPOSES, Purpose.LAPTOP.value, list(Purpose))))
    home = Path(os.environ.get("QWENBOX_HOME") or "~/.qwenbox").expanduser()
    data = data if data is not None else str(home) if yes else _ask(_DATA, str(home))
    usual = f"{_LOOPBACK if purpose is Purpose.LAPTOP else _EVERYWHERE}:{_PORT}"
    address = address if address is not None else usual if yes else _ask(_ADDRESS, usual)
    try:
        with told():
            folder, database = _place(data, home)
            host, port = _listens(address)
            answers = Answers(purpose=purpose, database=database, host=host, port=port)
            _write(folder / _FILE, _checked(text(answers)), is_forced=force)
    except _Wrong as error:
        err.print(str(error), style="red", markup=False)
        raise typer.Exit(2) from error
    _tell(folder, answers)


def _ask(question: str, default: str, choices: list[Purpose] | None = None) -> str:
    out.print(f"\n{question}")
    while True:
        answer = str(typer.prompt("  ", default=default, prompt_suffix="> ")).strip()
        if choices is None or answer in choices:
            return answer
        err.print(f"One of {', '.join(choices)}.", style="yellow", markup=False)


def _place(data: str, home: Path) -> tuple[Path, str]:
    """The data folder, and the database's URL or ""."""
    if "://" not in data:
        if not data.strip():
            raise _Wrong("The data folder has no name. Write a folder such as ~/.qwenbox, or the URL of a database.")
        return Path(data.strip()).expanduser().absolute(), ""
    address_of(data)
    return home, data


def _listens(address: str) -> tuple[str, int]:
    """`8000`, `:8000`, `0.0.0.0`, `0.0.0.0:8000`, `[::1]:8000` → host and port."""
    head, colon, tail = address.strip().rpartition(":")
    if not colon:
        head, tail = ("", tail) if tail.isdecimal() else (tail, str(_PORT))
    elif "[" in tail or (":" in head and "]" not in head):
        head, tail = address.strip(), str(_PORT)  # an IPv6 address without a port
    host = head.removeprefix("[").removesuffix("]") or _LOOPBACK
    if not (tail.isascii() and tail.isdecimal() and int(tail) <= 65_535) or not _HOST.fullmatch(host):
        raise _Wrong(f"{address!r} is no address to listen on. Write a port such as 8000, or address:port such as 0.0.0.0:8000.")
    return host, int(tail)


def _checked(written: str) -> str:
    """The text, once this very version has read it as its settings. Raises ConfigError."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _FILE).write_text(written, "utf-8")
        load(environment={"QWENBOX_HOME": folder})
    return written


def _write(path: Path, written: str, *, is_forced: bool) -> None:
    """Readable by its owner only, as a database's URL holds a password."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.draft")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(written)
        try:
            # A link is made whole or not at all, and never over a file that is there.
            draft.replace(path) if is_forced else path.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError as error:
        raise _Wrong(f"{path} is there already, and was left as it is. `qwenbox init --force` writes over it.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def _tell(folder: Path, answers: Answers) -> None:
    out.print("\n[green]Written:[/green] ", end="")
    out.print(f"{folder / _FILE}\n", markup=False)
    steps = ["qwenbox serve                      # fetches small weights at its first start, and prints your first key"]
    if answers.purpose is Purpose.CLOUD:
        steps = ["export DASHSCOPE_API_KEY=sk-…      # the real service's key; clients get keys of the box", "qwenbox serve"]
    # The folder is said, not the setting: whoever named it elsewhere must name it again at each command.
    if folder != Path(os.environ.get("QWENBOX_HOME") or "~/.qwenbox").expanduser().absolute():
        steps.insert(0, f"export QWENBOX_HOME={folder}")
    if answers.purpose is not Purpose.LAPTOP:
        steps += ["qwenbox accounts create alice --tier standard", "qwenbox keys create laptop --account alice"]
    if is_loopback(answers.host):
        steps.append("qwenbox console                    # keys, usage and a playground, in your browser")
    out.print("Next:")
    for step in [*steps, "qwenbox chat"]:
        out.print(f"  {step}", markup=False)
