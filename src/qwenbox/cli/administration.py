"""This is where a command gets to the admin API: of a running box by its address, else of the data folder in this very process."""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import anyio
import typer

from qwenbox.app.administration import admin_api
from qwenbox.app.office import open_office
from qwenbox.cli.console import settings, told
from qwenbox.client.admin import AdminClient, InProcess, open_remote
from qwenbox.config import Config
from qwenbox.server.admin.guard import KEY_FILE, AdminKey
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

T = TypeVar("T")

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="QWENBOX_ADMIN_URL",
        help="Ask a running box, with QWENBOX_ADMIN_KEY; nothing: the data folder, with or without a running box.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def ask(url: str, work: Callable[[AdminClient], Awaitable[T]]) -> T:
    """What `work` returns, or one clear line and exit status 1."""
    config = settings()

    async def run() -> T:
        async with _open(config, url) as admin:
            return await work(admin)

    with told():
        return anyio.run(run)


@asynccontextmanager
async def _open(config: Config, url: str) -> AsyncGenerator[AdminClient]:
    if url:
        async with open_remote(url, _key(config)) as admin:
            yield admin
        return
    async with open_office(config) as office:
        # Nobody but this process can use it, so a key for this moment does.
        key = AdminKey(secret=Secret(secrets.token_hex(16)), is_chosen=True)
        api = admin_api(config, office, key)
        yield AdminClient(InProcess(api.application), key.secret)


def _key(config: Config) -> Secret:
    """Of a running box: the setting's, else that of this machine's data folder, which is right for a box on this machine."""
    if config.admin.key is not None:
        return config.admin.key
    try:
        return Secret((config.home / KEY_FILE).read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise ApiError(
            ErrorKind.UNAUTHENTICATED, f"No admin key. Set QWENBOX_ADMIN_KEY to the box's own; by default it is in its {KEY_FILE}."
        ) from error
