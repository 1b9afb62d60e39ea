"""This is where tests have a whole box in their own process, without a server: its application, and its admin API."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from qwenbox.app.box import open_box
from qwenbox.client.admin import AdminClient, Application, InProcess
from qwenbox.config import load
from qwenbox.remote import RemoteReply
from qwenbox.terms.secret import Secret

ADMIN_KEY = "ak-test-0123456789abcdef"


class Boxed(msgspec.Struct, frozen=True, kw_only=True):
    admin: AdminClient
    application: Application

    async def post(self, path: str, body: Any, key: str) -> RemoteReply:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        return await InProcess(self.application).send("POST", path, headers, json.dumps(body).encode())


@asynccontextmanager
async def opened(home: Path, toml: str = "", profile: str = "echo") -> AsyncGenerator[Boxed]:
    """A box with these settings."""
    _furnish(home, toml)
    environment = {"QWENBOX_HOME": str(home), "QWENBOX_PROFILE": profile, "QWENBOX_ADMIN_KEY": ADMIN_KEY}
    async with open_box(load({}, environment)) as box:
        yield Boxed(admin=AdminClient(InProcess(box.application), Secret(ADMIN_KEY)), application=box.application)


def _furnish(home: Path, toml: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "qwenbox.toml").write_text(toml, "utf-8")


@asynccontextmanager
async def boxed(home: Path, toml: str = "", profile: str = "echo") -> AsyncGenerator[AdminClient]:
    """Its admin API alone."""
    async with opened(home, toml, profile) as box:
        yield box.admin
