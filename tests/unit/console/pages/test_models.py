"""What cards of models say, without a browser."""

from typing import Any

import msgspec
import pytest

from qwenbox.client.catalog import DeploymentInfo, Model, Pull, PulledFile, Speed, WeightsFile
from qwenbox.client.shapes import PriceRow, PriceTier
from qwenbox.console.pages.models.card import can_be_measured, facts, price, progress, speed
from qwenbox.console.pages.models.page import fits
from qwenbox.console.texts import Texts

T = Texts("en")
FILE = WeightsFile(name="w", title="W", file="w.gguf", licence="", bytes_here=0, bytes_total=10, is_here=False)
RUNS = DeploymentInfo(
    name="own", kind="llamacpp", weights="Qwen3 4B", state="missing", detail="", context_tokens=None, can_load=True, files=(FILE,)
)
MODEL = Model(
    name="qwen-plus",
    aliases=("qwen-plus-latest",),
    description="",
    capabilities=("chat", "tools"),
    context_tokens=131_072,
    max_input_tokens=None,
    max_output_tokens=8_192,
    price=None,
    deployments=(RUNS,),
    speed=None,
    pull="none",
)


def pull(state: str = "running", **changed: Any) -> Pull:
    file = PulledFile(
        name="w",
        title="W",
        state=state,
        phase=changed.pop("phase", "fetching"),
        source="hub",
        bytes_done=0,
        bytes_total=None,
        rate_bytes_s=0.0,
        reason="",
    )
    known = {"bytes_done": 25_000_000, "bytes_total": 100_000_000, "rate_bytes_s": 5_000_000.0, "eta_s": 15.2, "reason": ""}
    return Pull(model="m", state=state, files=(file,), **{**known, **changed})


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (pull(), "25 % · 25.0 MB of 100.0 MB · 5.0 MB/s · 15 s to go · from hub"),
        (pull(eta_s=125.0), "25 % · 25.0 MB of 100.0 MB · 5.0 MB/s · 2 min 5 s to go · from hub"),
        (pull(bytes_total=None, eta_s=None, rate_bytes_s=0.0), "25.0 MB · from hub"),
        (pull(phase="checking"), "25 % · 25.0 MB of 100.0 MB · checking its sha256"),
        (pull(phase="waiting"), "25 % · 25.0 MB of 100.0 MB · waiting for its turn"),
        (pull("failed"), "Fetching failed · 25.0 MB of 100.0 MB"),
        (pull("cancelled"), "Stopped; what is here is kept · 25.0 MB of 100.0 MB"),
    ],
)
def test_pull_says_how_far_it_is_and_how_it_ended(told: Pull, said: str) -> None:
    assert said == progress(T, told)


def row(*tiers: PriceTier) -> PriceRow:
    return PriceRow(
        model="m", since="2025-01-01", currency="CNY", version="v", is_active=True, cached_permille=200, batch_permille=500, tiers=tiers
    )


def tier(input_micros: int, output_micros: int, picture_micros: int | None = None) -> PriceTier:
    return PriceTier(
        up_to_tokens=None,
        input_micros=input_micros,
        output_micros=output_micros,
        cached_micros=None,
        image_micros=None,
        reasoning_micros=None,
        picture_micros=picture_micros,
    )


def test_price_is_said_without_zeros_that_say_nothing() -> None:
    assert "free" == price(T, None)
    assert "¥0.3 in, ¥0.6 out per million" == price(T, row(tier(300_000, 600_000)))
    assert "¥0.5 per million" == price(T, row(tier(500_000, 0)))
    assert "¥0.14 a picture" == price(T, row(tier(0, 0, 140_000)))
    assert "¥120 in, ¥1,000.5 out per million" == price(T, row(tier(120_000_000, 1_000_500_000)))


def test_speed_says_when_it_was_measured_and_what_could_not_be() -> None:
    measured = Speed(
        at=0.0, deployment="own", ttft_s=0.31, input_tokens=500, output_tokens=64, prefill_tokens_s=1_612.9, decode_tokens_s=None
    )
    assert speed(T, measured).startswith("writes – tokens/s, reads 1,613/s, begins after 310 ms (19")


@pytest.mark.parametrize(
    ("text", "kind", "is_found"),
    [
        ("", "all", True),
        ("plus", "all", True),
        ("latest", "all", True),
        ("qwen3 4b", "all", True),
        ("tools", "all", True),
        ("max", "all", False),
        ("", "here", False),
        ("", "missing", True),
    ],
)
def test_model_is_found_by_what_it_is_called_and_by_what_runs_it(text: str, kind: str, is_found: bool) -> None:
    assert is_found is fits(MODEL, text, kind)


def test_model_that_answers_is_here_and_can_be_measured_when_it_writes() -> None:
    ready = msgspec.structs.replace(MODEL, deployments=(msgspec.structs.replace(RUNS, state="ready", files=()),))
    assert fits(ready, "", "here")
    assert not fits(ready, "", "missing")
    assert can_be_measured(ready)
    assert not can_be_measured(MODEL)
    assert not can_be_measured(msgspec.structs.replace(ready, capabilities=("embedding",)))


def test_facts_are_said_in_chinese() -> None:
    assert ["上下文 131,072 Token", "最多输出 8,192", "免费"] == facts(Texts("zh-CN"), MODEL)
