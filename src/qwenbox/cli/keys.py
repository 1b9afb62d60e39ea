"""This is where keys are made, listed and revoked from the command line, beside a running box or without one."""

from datetime import UTC, datetime
from typing import Annotated

import anyio
import msgspec
import typer
from rich.table import Table

from qwenbox.app import DEFAULT_ACCOUNT, open_office
from qwenbox.cli.console import emit, out, settings, told
from qwenbox.gateway.keys import Key, NewKey
from qwenbox.terms.caller import Compat, SeedPolicy
from qwenbox.terms.secret import Secret

app = typer.Typer(help="Create, list and revoke API keys. Works with and without a running box.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, e.g. `laptop` or `ci`.")] = "key",
    compat: Annotated[Compat | None, typer.Option(help="Follow the document or the live service; default: the box's level.")] = None,
    seeds: Annotated[SeedPolicy, typer.Option(help="`exact`: seeds are promises. `pass`: only handed on.")] = SeedPolicy.EXACT,
    as_json: Json = False,
) -> None:
    """Make a key. Its secret is shown here and never again.

    Example: `export DASHSCOPE_API_KEY=$(qwenbox keys create ci --json | jq -r .secret)`
    """

    async def run() -> tuple[Key, Secret]:
        async with open_office(settings()) as office:
            account = await office.accounts.named(DEFAULT_ACCOUNT)
            return await office.keys.issue(NewKey(account_id=account.id, name=name, compat=compat, seeds=seeds))

    with told():
        key, secret = anyio.run(run)
    if as_json:
        emit({**msgspec.to_builtins(key), "secret": secret.reveal()})
    else:
        out.print(f"Key [bold]{key.id}[/bold] ({name}). Copy it now, it is not shown again:\n\n  {secret.reveal()}\n")


@app.command("list")
def list_keys(as_json: Json = False) -> None:
    """List all keys by their first characters; secrets are stored hashed and can't be shown."""

    async def run() -> tuple[Key, ...]:
        async with open_office(settings()) as office:
            return await office.keys.every()

    with told():
        keys = anyio.run(run)
    if as_json:
        emit(keys)
        return
    table = Table("id", "name", "key", "created", "level", "seeds", "state", box=None)
    for key in keys:
        created = datetime.fromtimestamp(key.created_at, UTC).strftime("%Y-%m-%d %H:%M")
        state = "valid" if key.revoked_at is None else "[red]revoked[/red]"
        table.add_row(key.id, key.name, f"{key.prefix}…", created, key.compat or "box", key.seeds, state)
    out.print(table)


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="The key's id or name, as `qwenbox keys list` shows it.")]) -> None:
    """Refuse a key from now on; running boxes know within 2 seconds."""

    async def run() -> Key:
        async with open_office(settings()) as office:
            return await office.keys.revoke(key)

    with told():
        revoked = anyio.run(run)
    out.print(f"Revoked {revoked.id} ({revoked.name}).")
