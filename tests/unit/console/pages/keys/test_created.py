"""When a key was last used, in words."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from qwenbox.client.admin import AdminClient, InProcess
from qwenbox.client.shapes import Key, NewAccount, NewKey
from qwenbox.client.sign_in import Session
from qwenbox.console.house import House
from qwenbox.console.pages.keys.created import last_used
from qwenbox.console.texts import Texts
from qwenbox.console.view import View
from qwenbox.gateway.statements import Statements
from qwenbox.server.admin.api import AdminApi
from qwenbox.terms.secret import Secret
from support.administration import KEY, Administration, administration

pytestmark = pytest.mark.anyio

LOOKED_AT = 5


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Administration]:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}") as opened:
        yield opened


@pytest.fixture
def view(admin: Administration) -> View:
    """Of a box that looks at so few calls for one page."""
    parts = msgspec.structs.replace(admin.parts, statements=Statements(admin.database, LOOKED_AT))
    api = AdminApi(parts, admin.api.guard, 64 * 1024)
    client = AdminClient(InProcess(api.application), Secret(KEY))
    return View(House(client, "http://127.0.0.1:1"), Texts("en"), Session(token="", account="", expires_at=0.0), None, "")


@pytest.fixture
async def key(admin: Administration) -> Key:
    await admin.client.create_account(NewAccount(name="alice"))
    return await admin.client.create_key(NewKey(account="alice", name="ci"))


async def test_last_used_tells_the_newest_call_of_the_key(admin: Administration, view: View, key: Key):
    assert "Not used yet, as far as calls are kept." == await last_used(view, key)
    for model in ("qwen-turbo", "qwen-plus"):
        await admin.used(key.account_id, key.id, model=model)
    await admin.used(key.account_id, "another")
    said = await last_used(view, key)
    assert said.startswith("Last used 20") and said.endswith(", for qwen-plus.")


async def test_last_used_does_not_say_never_when_only_the_newest_calls_were_looked_at(admin: Administration, view: View, key: Key):
    await admin.used(key.account_id, key.id)
    for _ in range(2 * LOOKED_AT):
        await admin.used(key.account_id, "another")
    assert "Not used lately: the newest calls are all of other keys." == await last_used(view, key)
