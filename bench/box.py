"""This is where the box itself is a target: as it comes, and with everything on, over each kind of counters and books.

Everything on: the key is checked, requests and tokens count in the windows of a tier, the balance is prepaid, the month has a budget,
and every call is booked before its last byte. All of it counts, and nothing is small enough to refuse a call.
"""

import os
import sys
from collections.abc import Callable

import anyio
import msgspec

from bench.process import Command
from bench.target import KEY, Place, Target, bearer
from qwenbox import config
from qwenbox.app.office import DEFAULT_ACCOUNT, open_office
from qwenbox.gateway.accounts import AccountChange

_MONEY_MICROS = 10**15

_UPSTREAM = """
[engine.up]
kind = "openai_server"
address = "{upstream}/v1"
model = "instant"

[[model]]
name = "qwen-turbo"
deployments = ["up"]
"""
_LIMITED = """
[limits]
default_tier = "bench"

[tier.bench]
rpm = 1_000_000_000
tpm = 1_000_000_000_000
concurrency = 1_000_000
"""


def qwenbox_command(place: Place, toml: str, profile: str = "echo") -> Command:
    """A box with a data folder of its own; what the caller's environment says about boxes does not reach it."""
    home = place.folder / "home"
    home.mkdir()
    (home / "qwenbox.toml").write_text(toml, "utf-8")
    return Command(
        arguments=(sys.executable, "-m", "qwenbox", "serve"),
        ready=f"http://127.0.0.1:{place.port}/ready",
        environment={
            **{name: "" for name in os.environ if name.startswith("QWENBOX_")},
            "QWENBOX_HOME": str(home),
            "QWENBOX_PROFILE": profile,
            "QWENBOX_HOST": "127.0.0.1",
            "QWENBOX_PORT": str(place.port),
            "QWENBOX_API_KEY": KEY,
            "QWENBOX_DATABASE_URL": place.stores.postgres_url,
            "QWENBOX_VALKEY_URL": place.stores.valkey_url,
        },
    )


def _plain(place: Place) -> Command:
    return qwenbox_command(place, _UPSTREAM.format(upstream=place.upstream_url))


def governed_command(place: Place) -> Command:
    """Everything on, except the money in the account: `fund` pays it in."""
    return qwenbox_command(place, _UPSTREAM.format(upstream=place.upstream_url) + _LIMITED)


def _governed(place: Place) -> Command:
    command = governed_command(place)
    anyio.run(fund, config.load(environment=command.environment))
    return command


def _two_workers(place: Place) -> Command:
    command = _governed(place)
    return Command(arguments=command.arguments, ready=command.ready, environment={**command.environment, "QWENBOX_WORKERS": "2"})


async def fund(settings: config.Config) -> str:
    """The account that gets the first key, prepaid and with a budget; its id."""
    async with open_office(settings) as office:
        account = await office.accounts.named(DEFAULT_ACCOUNT)
        await office.accounts.update(account.id, AccountChange(is_prepaid=True, budget_micros=_MONEY_MICROS))
        await office.ledger.top_up(account.id, _MONEY_MICROS)
        return account.id


def _target(name: str, governs: str, stores: frozenset[str], command: Callable[[Place], Command] = _governed) -> Target:
    return Target(
        name=name,
        governs=governs,
        missing=lambda: "",
        hint="",
        command=command,
        headers=bearer,
        model="qwen-turbo",
        stores=stores,
    )


def _in_memory(target: Target) -> Target:
    """Its windows remember the calls of a minute, so memory grows as long under load."""
    return msgspec.structs.replace(target, fills_s=62.0)


_POSTGRES, _VALKEY = frozenset({"postgres"}), frozenset({"valkey"})
PLAIN, GOVERNED, GOVERNED_POSTGRES, TWO_WORKERS = "qwenbox", "governed", "governed-postgres", "governed-2-workers"
BOXES: tuple[Target, ...] = (
    _target(PLAIN, "keys, catalog, usage", frozenset(), _plain),
    _in_memory(_target(GOVERNED, "everything: memory, SQLite", frozenset())),
    _in_memory(_target(GOVERNED_POSTGRES, "everything: memory, PostgreSQL", _POSTGRES)),
    _target("governed-valkey", "everything: Valkey, SQLite", _VALKEY),
    _target("governed-valkey-postgres", "everything: Valkey, PostgreSQL", _VALKEY | _POSTGRES),
    msgspec.structs.replace(
        _target(TWO_WORKERS, "everything: Valkey, PostgreSQL, 2 workers", _VALKEY | _POSTGRES, _two_workers), workers=2
    ),
)
