"""Batches of every account over the admin API of a whole box, whose workers run their lines."""

import json
from pathlib import Path

import anyio
import pytest

from qwenbox.client.admin import InProcess
from qwenbox.client.jobs import BatchesAsked, BatchJob, NewBatchJob
from qwenbox.client.shapes import IssuedKey, NewAccount, NewKey
from qwenbox.terms.errors import ApiError, ErrorKind
from support.boxed import Boxed, opened

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
SETTINGS = "[batch]\npoll_s = 0.05\n"


async def keyed(box: Boxed, account: str) -> IssuedKey:
    await box.admin.create_account(NewAccount(name=account))
    return await box.admin.create_key(NewKey(account=account, name=f"{account}'s"))


async def uploaded(box: Boxed, key: str, count: int = 3) -> str:
    """The id of a file of so many requests."""
    body = {"model": "qwen-turbo", "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 4}
    lines = "\n".join(json.dumps({"custom_id": str(n), "method": "POST", "url": CHAT, "body": body}) for n in range(count))
    data = (
        '--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n{lines}\r\n--b--\r\n'
    )
    headers = {"authorization": f"Bearer {key}", "content-type": "multipart/form-data; boundary=b"}
    reply = await InProcess(box.application).send("POST", "/v1/files", headers, data.encode())
    return str(json.loads(reply.body)["id"])


async def over(box: Boxed, batch: BatchJob) -> BatchJob:
    with anyio.fail_after(30):
        while not batch.is_over:
            await anyio.sleep(0.02)
            batch = await box.admin.batch(batch.id)
    return batch


async def test_batch_runs_in_the_name_of_a_key_and_tells_what_it_cost(tmp_path: Path) -> None:
    async with opened(tmp_path, SETTINGS) as box:
        key = await keyed(box, "alice")
        wanted = NewBatchJob(key=key.id, input_file_id=await uploaded(box, key.secret), endpoint=CHAT, name="名单.txt", description="first")
        made = await box.admin.create_batch(wanted)
        assert (key.account_id, key.id, "名单.txt", "first", False) == (
            made.account_id,
            made.key_id,
            made.name,
            made.description,
            made.is_over,
        )
        done = await over(box, made)
    assert ("completed", "qwen-turbo", 3, 3, 0) == (done.status, done.model, done.total, done.completed, done.failed)
    assert done.output_file_id and not done.error_file_id
    assert done.input_tokens > 0 and 0 < done.output_tokens <= 12 and done.cost_micros > 0 and done.currency == "CNY"


async def test_batches_of_all_accounts_are_listed_newest_first_by_what_is_asked(tmp_path: Path) -> None:
    async with opened(tmp_path, SETTINGS) as box:
        made: list[BatchJob] = []
        for account in ("alice", "bob", "carol"):
            key = await keyed(box, account)
            wanted = NewBatchJob(key=key.id, input_file_id=await uploaded(box, key.secret, 1), endpoint=CHAT, name=f"of {account}")
            made.append(await over(box, await box.admin.create_batch(wanted)))
        found: list[str] = []
        asked = BatchesAsked(limit=2)
        while True:
            page = await box.admin.batches(asked)
            found += [batch.id for batch in page.items]
            if page.next_cursor is None:
                break
            asked = BatchesAsked(limit=2, cursor=page.next_cursor)
        assert [batch.id for batch in reversed(made)] == found
        for filters, expected in (
            (BatchesAsked(account="bob"), [made[1].id]),
            (BatchesAsked(name="of c"), [made[2].id]),
            (BatchesAsked(is_open=True), []),
            (BatchesAsked(is_open=False, limit=1), [made[2].id]),
        ):
            assert expected == [batch.id for batch in (await box.admin.batches(filters)).items]


async def test_batch_says_why_its_file_was_not_run(tmp_path: Path) -> None:
    async with opened(tmp_path, SETTINGS) as box:
        key = await keyed(box, "alice")
        wanted = NewBatchJob(key=key.id, input_file_id=await uploaded(box, key.secret), endpoint="/v1/completions")
        ended = await over(box, await box.admin.create_batch(wanted))
        with pytest.raises(ApiError) as caught:
            await box.admin.cancel_batch(ended.id)
    assert ("failed", 3, 1) == (ended.status, len(ended.faults), ended.faults[0].line)
    assert ErrorKind.CONFLICT is caught.value.kind


async def test_batch_is_refused_when_it_makes_no_sense(tmp_path: Path) -> None:
    async with opened(tmp_path, SETTINGS) as box:
        alice, bob = await keyed(box, "alice"), await keyed(box, "bob")
        revoked = await box.admin.create_key(NewKey(account="alice", name="old"))
        file_id = await uploaded(box, alice.secret)
        await box.admin.revoke_key(revoked.id)
        for wanted, kind, param in (
            (NewBatchJob(key=revoked.id, input_file_id=file_id, endpoint=CHAT), ErrorKind.INVALID_REQUEST, "key"),
            (NewBatchJob(key=bob.id, input_file_id=file_id, endpoint=CHAT), ErrorKind.NOT_FOUND, "id"),
            (NewBatchJob(key=alice.id, input_file_id=file_id, endpoint="/v1/other"), ErrorKind.INVALID_REQUEST, "endpoint"),
            (NewBatchJob(key=alice.id, input_file_id=file_id, endpoint=CHAT, window="1h"), ErrorKind.INVALID_REQUEST, "completion_window"),
        ):
            with pytest.raises(ApiError) as caught:
                await box.admin.create_batch(wanted)
            assert (kind, param) == (caught.value.kind, caught.value.param)
        with pytest.raises(ApiError) as caught:
            await box.admin.batch("batch_nobodys")
        assert ErrorKind.NOT_FOUND is caught.value.kind
