"""Tiers: which windows a call must fit in, and how an account weighs."""

from pathlib import Path

import msgspec
import pytest

from qwenbox.config import ConfigError, load
from qwenbox.gateway.counters.base import Window
from qwenbox.gateway.limits import LimitsConfig, Tier, Tiers
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.limits import Limits

MODEL = "qwen-max"


def tiers(default: str = "unlimited", **more: Tier) -> Tiers:
    return Tiers(LimitsConfig(default_tier=default), {"unlimited": Tier(weight=4), "free": Tier(rpm=60, tpm=100_000), **more})


def caller(tier: str = "free", **fields: object) -> Caller:
    return msgspec.structs.replace(Caller(account_id="acc-1", key_id="key-1", tier=tier), **fields)


def window(owner: str, *, requests: int | None = None, tokens: int | None = None, concurrency: int | None = None) -> Window:
    return Window(id=f"{owner}/{MODEL}", requests=requests, tokens=tokens, concurrency=concurrency)


def test_windows_are_the_accounts_when_its_tier_limits() -> None:
    assert (window("acc-1", requests=60, tokens=100_000),) == tiers().windows(caller(), MODEL)


def test_windows_are_none_when_nothing_limits() -> None:
    assert () == tiers().windows(caller("unlimited"), MODEL)


def test_windows_hold_the_keys_own_on_top_of_the_tiers() -> None:
    limited = caller(limits=Limits(rpm=5, concurrency=2))
    expected = (window("acc-1", requests=60, tokens=100_000), window("key-1", requests=5, concurrency=2))
    assert expected == tiers().windows(limited, MODEL)
    assert expected[1:] == tiers().windows(msgspec.structs.replace(limited, tier="unlimited"), MODEL)


def test_windows_follow_the_caller_when_a_keys_limits_change() -> None:
    known = tiers()
    known.windows(caller(limits=Limits(rpm=5)), MODEL)
    assert known.windows(caller(limits=Limits(rpm=6)), MODEL)[1] == window("key-1", requests=6)
    assert len(known.windows(caller(), MODEL)) == 1


def test_windows_of_one_account_are_shared_by_its_keys_but_not_by_models() -> None:
    known = tiers()
    (first,), (second,) = known.windows(caller(), MODEL), known.windows(caller(key_id="key-2"), MODEL)
    assert first == second
    assert known.windows(caller(), "qwen-plus")[0].id == "acc-1/qwen-plus"


def test_tier_of_a_model_changes_only_what_its_row_names() -> None:
    known = tiers(small=Tier(rpm=10, tpm=500, model={MODEL: Limits(rpm=2)}))
    assert (window("acc-1", requests=2, tokens=500),) == known.windows(caller("small"), MODEL)
    assert known.windows(caller("small"), "qwen-plus")[0].requests == 10


def test_tier_without_limits_limits_the_model_it_names() -> None:
    known = tiers(mostly_free=Tier(model={MODEL: Limits(concurrency=1)}))
    assert (window("acc-1", concurrency=1),) == known.windows(caller("mostly_free"), MODEL)
    assert () == known.windows(caller("mostly_free"), "qwen-plus")


def test_tier_is_the_default_one_when_the_account_has_none() -> None:
    assert tiers("free").windows(caller(""), MODEL) == tiers().windows(caller("free"), MODEL)
    assert tiers().weight(caller("")) == 4


def test_windows_refuse_when_the_tier_is_not_configured() -> None:
    for ask in (lambda: tiers().windows(caller("gold"), MODEL), lambda: tiers().weight(caller("gold"))):
        with pytest.raises(ApiError) as refused:
            ask()
        assert refused.value.kind is ErrorKind.FORBIDDEN
        assert "[tier.gold]" in refused.value.message


def test_windows_are_made_anew_when_many_callers_came() -> None:
    known = tiers()
    for number in range(10_001):
        known.windows(caller(key_id=f"key-{number}", account_id=f"acc-{number}"), MODEL)
    assert known.windows(caller(key_id="key-1", account_id="acc-1"), MODEL)[0].id == f"acc-1/{MODEL}"


def test_shipped_tiers_are_the_documented_ones(tmp_path: Path) -> None:
    shipped = load(environment={"QWENBOX_HOME": str(tmp_path)}).tier
    told = {name: (tier.rpm, tier.tpm, tier.concurrency, tier.weight) for name, tier in shipped.items()}
    assert told == {
        "free": (60, 100_000, None, 1),
        "standard": (300, 1_000_000, None, 2),
        "premium": (1_200, 5_000_000, None, 4),
        "unlimited": (None, None, None, 4),
    }


def test_load_merges_a_users_tier_into_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "qwenbox.toml").write_text(
        '[limits]\nwindow_s = 5\ndefault_tier = "free"\n[tier.free]\nrpm = 7\n[tier.free.model."qwen3-max.5"]\nconcurrency = 3\n'
    )
    config = load(environment={"QWENBOX_HOME": str(tmp_path)})
    assert config.limits == LimitsConfig(window_s=5.0, default_tier="free")
    assert config.tier["free"] == Tier(rpm=7, tpm=100_000, model={"qwen3-max.5": Limits(concurrency=3)})


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[tier.free]\nrpm = 0", "rpm must be 1 or more"),
        ("[tier.free]\nweight = 0", "weight must be 1 or more"),
        ("[tier.free.model.x]\ntpm = -1", "tpm must be 1 or more"),
        ("[limits]\nwindow_s = 0", "window_s must be above 0"),
        ("[limits]\nwindow_s = nan", "window_s must be above 0"),
        ('[limits]\ndefault_tier = "gold"', "default_tier is 'gold'"),
        ("[money]\nwait = 1", "wait"),
    ],
)
def test_load_names_the_mistake_when_limits_make_no_sense(tmp_path: Path, toml: str, told: str) -> None:
    (tmp_path / "qwenbox.toml").write_text(toml)
    with pytest.raises(ConfigError) as wrong:
        load(environment={"QWENBOX_HOME": str(tmp_path)})
    assert told in str(wrong.value)
