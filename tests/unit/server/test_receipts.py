"""A caller's own receipts."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from qwenbox.client.admin import InProcess
from qwenbox.gateway.keys import NewKey
from qwenbox.server.exchange import Exchange
from qwenbox.server.receipts import PREFIX, Receipts
from support.administration import Administration, administration

pytestmark = pytest.mark.anyio


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Administration]:
    async with administration(f"sqlite+aiosqlite:///{tmp_path / 'box.db'}") as opened:
        yield opened


async def account(admin: Administration, name: str) -> tuple[str, str]:
    """Its id, and the secret of a key of it."""
    made = await admin.parts.accounts.named(name)
    _, secret = await admin.parts.keys.issue(NewKey(account_id=made.id, name=name))
    return made.id, secret.reveal()


async def get(admin: Administration, request_id: str, secret: str, method: str = "GET") -> tuple[int, Any]:
    receipts = Receipts(admin.parts.statements, admin.parts.keys.verify)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receipts.answer(Exchange(scope, receive, send, "request"))

    reply = await InProcess(application).send(method, PREFIX + request_id, {"authorization": f"Bearer {secret}"} if secret else {}, b"")
    return reply.status, json.loads(reply.body)


async def test_receipt_is_told_to_the_account_that_called(admin: Administration) -> None:
    account_id, secret = await account(admin, "alice")
    call = await admin.used(account_id)
    status, receipt = await get(admin, call.id, secret)
    assert (200, call.id, 360) == (status, receipt["call"]["id"], receipt["call"]["cost_micros"])


async def test_receipt_is_404_for_other_accounts_and_for_what_never_was(admin: Administration) -> None:
    account_id, secret = await account(admin, "alice")
    _, others = await account(admin, "bob")
    call = await admin.used(account_id)
    heard = [await get(admin, call.id, others), *[await get(admin, name, secret) for name in ("nothing", "%00", "x" * 200, "a%2Fb")]]
    assert {404} == {status for status, _ in heard}
    # Nobody learns from the answer whether the call exists.
    assert 1 == len({body["error"]["message"] for _, body in heard})


async def test_receipt_needs_a_key_and_can_only_be_read(admin: Administration) -> None:
    account_id, secret = await account(admin, "alice")
    call = await admin.used(account_id)
    assert 401 == (await get(admin, call.id, ""))[0] == (await get(admin, call.id, "sk-wrong"))[0]
    assert 405 == (await get(admin, call.id, secret, "DELETE"))[0]
