"""This is where keys are made, listed, changed and revoked from the command line, beside a running box or without one."""

from typing import Annotated

import typer
from msgspec import UNSET
from rich.table import Table

from qwenbox.app.office import DEFAULT_ACCOUNT
from qwenbox.cli.administration import Json, Url, ask
from qwenbox.cli.amounts import NONE, micros, moment, number, shown, units
from qwenbox.cli.console import emit, lay_out, out
from qwenbox.client.admin import AdminClient
from qwenbox.client.shapes import IssuedKey, Key, KeyChange, NewAccount, NewKey
from qwenbox.terms.caller import CachePolicy, Compat, SeedPolicy
from qwenbox.terms.errors import ApiError, ErrorKind

app = typer.Typer(
    help="Create, list, change and revoke API keys. Works with and without a running box.\n\n"
    "For instance a key for a class, 50 units a month, small models only:\n\n"
    "    qwenbox keys create class-3b --models qwen-turbo,qwen-plus --budget 50 --rpm 30 --expires 2027-07-01",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Models = Annotated[str | None, typer.Option(help="Public names it may use, with commas; default: all.", show_default=False)]
Expires = Annotated[str | None, typer.Option(help="When it ends: a span (30d, 12h) or a date (2026-12-31).", show_default=False)]
Budget = Annotated[str | None, typer.Option(help="What it may spend in a month, in units: 12.50.", show_default=False)]
Rpm = Annotated[str | None, typer.Option(help="Requests in any 60 s, per model.", show_default=False)]
Tpm = Annotated[str | None, typer.Option(help="Tokens (input + output) in any 60 s, per model.", show_default=False)]
Concurrency = Annotated[str | None, typer.Option(help="Calls open at once, per model.", show_default=False)]
Cache = Annotated[
    CachePolicy | None, typer.Option(help="Answers from the cache: `auto` if the request determines them.", show_default=False)
]
History = Annotated[str | None, typer.Option(help="Tokens a chat's prompt may have before older turns are left out.", show_default=False)]
Collapse = Annotated[bool | None, typer.Option(help="Runs of blanks and empty lines in prompts become one.", show_default=False)]
Which = Annotated[str, typer.Argument(help="The key's id or name, as `qwenbox keys list` shows it.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, e.g. `laptop` or `ci`.")] = "key",
    account: Annotated[str, typer.Option(help="Who pays: an account's name or id.")] = DEFAULT_ACCOUNT,
    models: Models = None,
    expires: Expires = None,
    budget: Budget = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    compat: Annotated[Compat | None, typer.Option(help="Follow the document or the live service; default: the box's level.")] = None,
    seeds: Annotated[SeedPolicy, typer.Option(help="`exact`: seeds are promises. `pass`: only handed on.")] = SeedPolicy.EXACT,
    cache: Cache = None,
    history_tokens: History = None,
    collapse_whitespace: Collapse = None,
    as_json: Json = False,
    url: Url = "",
) -> None:
    """Make a key. Its secret is shown here and never again.

    Examples:

        export DASHSCOPE_API_KEY=$(qwenbox keys create ci --json | jq -r .secret)

        qwenbox keys create demo --account alice --models qwen-turbo --expires 7d --budget 5 --rpm 10

        qwenbox keys create bot --history-tokens 4000 --collapse-whitespace --cache all
    """
    wanted = NewKey(
        account=account,
        name=name,
        compat=compat,
        seeds=seeds,
        models=None if models is None else _names(models),
        expires_at=None if expires is None else moment(expires),
        budget_micros=None if budget is None else micros(budget),
        rpm=None if rpm is None else number(rpm),
        tpm=None if tpm is None else number(tpm),
        concurrency=None if concurrency is None else number(concurrency),
        cache=cache or CachePolicy.AUTO,
        history_tokens=None if history_tokens is None else number(history_tokens),
        collapses_whitespace=collapse_whitespace or False,
    )

    async def work(admin: AdminClient) -> IssuedKey:
        try:
            return await admin.create_key(wanted)
        except ApiError as error:
            if error.kind is not ErrorKind.NOT_FOUND or account != DEFAULT_ACCOUNT:
                raise
        # The first account is made with the first key, as `qwenbox serve` does.
        await admin.create_account(NewAccount(name=DEFAULT_ACCOUNT))
        return await admin.create_key(wanted)

    key = ask(url, work)
    if as_json:
        emit(key)
    else:
        out.print(f"Key [bold]{key.id}[/bold] ({name}). Copy it now, it is not shown again:\n\n  {key.secret}\n")


@app.command("list")
def list_keys(
    account: Annotated[str, typer.Option(help="Only keys of this account.", show_default=False)] = "",
    as_json: Json = False,
    url: Url = "",
) -> None:
    """List keys by their first characters; secrets are stored hashed and can't be shown."""

    async def work(admin: AdminClient) -> tuple[tuple[Key, ...], dict[str, str]]:
        names = {known.id: known.name for known in await admin.accounts()}
        return await admin.keys(account), names

    keys, names = ask(url, work)
    if as_json:
        emit(keys)
        return
    table = Table("id", "name", "account", "key", "created", "may use", "level", "seeds", "state", box=None)
    for key in keys:
        account_name, created = names.get(key.account_id, key.account_id), shown(key.created_at)
        may_use = ", ".join([",".join(key.models) if key.models is not None else "all models", *_limits(key)])
        table.add_row(key.id, key.name, account_name, f"{key.prefix}…", created, may_use, key.compat or "box", key.seeds, _state(key))
    lay_out(table)


@app.command("set")
def set_key(
    key: Which,
    name: Annotated[str | None, typer.Option(help="Another name.", show_default=False)] = None,
    models: Models = None,
    expires: Expires = None,
    budget: Budget = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    compat: Annotated[str | None, typer.Option(help="`documented` or `strict`.", show_default=False)] = None,
    seeds: Annotated[SeedPolicy | None, typer.Option(help="`exact` or `pass`.", show_default=False)] = None,
    cache: Cache = None,
    history_tokens: History = None,
    collapse_whitespace: Collapse = None,
    as_json: Json = False,
    url: Url = "",
) -> None:
    """Change a key; what is not named stays, `none` takes a restriction away. Running boxes know within 2 seconds.

    Example: `qwenbox keys set demo --rpm 60 --budget none`
    """
    change = KeyChange(
        name=UNSET if name is None else name,
        models=UNSET if models is None else None if models == NONE else _names(models),
        expires_at=UNSET if expires is None else None if expires == NONE else moment(expires),
        budget_micros=UNSET if budget is None else None if budget == NONE else micros(budget),
        rpm=UNSET if rpm is None else None if rpm == NONE else number(rpm),
        tpm=UNSET if tpm is None else None if tpm == NONE else number(tpm),
        concurrency=UNSET if concurrency is None else None if concurrency == NONE else number(concurrency),
        compat=UNSET if compat is None else None if compat == NONE else _compat(compat),
        seeds=UNSET if seeds is None else seeds,
        cache=UNSET if cache is None else cache,
        history_tokens=UNSET if history_tokens is None else None if history_tokens == NONE else number(history_tokens),
        collapses_whitespace=UNSET if collapse_whitespace is None else collapse_whitespace,
    )
    changed = ask(url, lambda admin: admin.change_key(key, change))
    if as_json:
        emit(changed)
    else:
        out.print(f"Changed {changed.id} ({changed.name}).")


@app.command()
def revoke(key: Which, as_json: Json = False, url: Url = "") -> None:
    """Refuse a key from now on; running boxes know within 2 seconds. Short-lived keys made with it are refused too."""
    revoked = ask(url, lambda admin: admin.revoke_key(key))
    if as_json:
        emit(revoked)
    else:
        out.print(f"Revoked {revoked.id} ({revoked.name}).")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _compat(text: str) -> Compat:
    if text not in list(Compat):
        raise typer.BadParameter(f"{text!r} is no level; levels are {', '.join(Compat)}, or {NONE} for the box's own")
    return Compat(text)


def _limits(key: Key) -> list[str]:
    parts = [f"{value:,} {name}" for name, value in (("rpm", key.rpm), ("tpm", key.tpm), ("open", key.concurrency)) if value is not None]
    if key.budget_micros is not None:
        parts.append(f"{units(key.budget_micros)} a month")
    if key.cache is not CachePolicy.AUTO:
        parts.append(f"cache {key.cache}")
    if key.history_tokens is not None:
        parts.append(f"history {key.history_tokens:,} tokens")
    if key.collapses_whitespace:
        parts.append("white space collapsed")
    return parts


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return "[red]revoked[/red]"
    return "valid" if key.expires_at is None else f"until {shown(key.expires_at)}"
