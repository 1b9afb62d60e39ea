"""Live windows over the admin API, after real calls."""

from pathlib import Path

import pytest

from qwenbox.client.shapes import NewAccount, NewKey
from support.boxed import Boxed, opened

pytestmark = pytest.mark.anyio

SETTINGS = """
[tier.small]
rpm = 5
tpm = 1_000
[tier.small.model.qwen-plus]
tpm = 9_000
"""


async def test_tiers_are_told_with_their_limits_and_which_is_the_default(tmp_path: Path) -> None:
    settings = SETTINGS + '[tier.large]\nweight = 3\nconcurrency = 7\n[limits]\ndefault_tier = "large"\n'
    async with opened(tmp_path, settings) as box:
        told = {tier.name: tier for tier in await box.admin.tiers()}
    small, large = told["small"], told["large"]
    assert (5, 1_000, None, 1, False) == (small.rpm, small.tpm, small.concurrency, small.weight, small.is_default)
    assert (None, None, 7, 3, True) == (large.rpm, large.tpm, large.concurrency, large.weight, large.is_default)
    assert ["large"] == [name for name, tier in told.items() if tier.is_default]


async def call(box: Boxed, key: str, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 4}
    assert 200 == (await box.post("/v1/chat/completions", body, key)).status


async def test_windows_tell_whose_they_are_what_is_used_and_when_it_is_free_again(tmp_path: Path) -> None:
    async with opened(tmp_path, SETTINGS) as box:
        assert () == await box.admin.limits()
        account = await box.admin.create_account(NewAccount(name="alice", tier="small"))
        key = await box.admin.create_key(NewKey(account="alice", name="ci", concurrency=2))
        await call(box, key.secret, "qwen-turbo-latest")
        await call(box, key.secret, "qwen-turbo")
        await call(box, key.secret, "qwen-plus")
        told = {(window.account, window.key, window.model): window for window in await box.admin.limits()}
    assert {("alice", key_name, model) for key_name in ("", "ci") for model in ("qwen-turbo", "qwen-plus")} == set(told)
    turbo, plus, own = told["alice", "", "qwen-turbo"], told["alice", "", "qwen-plus"], told["alice", "ci", "qwen-turbo"]
    assert (account.id, 2, 5, 1_000, None) == (
        turbo.owner_id,
        turbo.requests,
        turbo.requests_limit,
        turbo.tokens_limit,
        turbo.concurrency_limit,
    )
    assert (5, 9_000) == (plus.requests_limit, plus.tokens_limit)
    assert (key.id, 2, None, None, 2) == (own.owner_id, own.requests, own.requests_limit, own.tokens_limit, own.concurrency_limit)
    assert 0 < turbo.tokens < 1_000
    assert 0 < turbo.frees_in_s <= turbo.empty_in_s <= turbo.window_s == 60.0
