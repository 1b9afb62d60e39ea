"""Settings: each source wins over the one before it, and a mistake is named."""

import itertools
from pathlib import Path

import pytest

from qwenbox.config import ConfigError, load, profiles
from qwenbox.terms.caller import Compat


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def env(home: Path, **variables: str) -> dict[str, str]:
    return {"QWENBOX_HOME": str(home), **variables}


def test_load_serves_the_laptop_profile_by_default(home: Path) -> None:
    config = load(environment=env(home))
    assert [entry.name for entry in config.model][:5] == ["qwen-turbo", "qwen-plus", "qwen-max", "qwen-vl-plus", "qwen-vl-max"]
    assert ("127.0.0.1", 8000, Compat.DOCUMENTED) == (config.server.host, config.server.port, config.compat)


def test_load_lets_flags_win_over_environment_over_file(home: Path) -> None:
    (home / "qwenbox.toml").write_text('compat = "strict"\n[server]\nport = 1\nhost = "::1"\nheartbeat_s = 3.0\n')
    config = load({"server.host": "0.0.0.0", "profile": None}, env(home, QWENBOX_PORT="2"))
    assert ("0.0.0.0", 2, 3.0, Compat.STRICT) == (config.server.host, config.server.port, config.server.heartbeat_s, config.compat)


def test_load_merges_a_model_by_its_name_and_adds_new_ones(home: Path) -> None:
    rows = ('name = "qwen-plus"', 'name = "mine"\ncard = {context_tokens = 9}')
    (home / "qwenbox.toml").write_text("".join(f'[[model]]\n{row}\ndeployments = ["small"]\n' for row in rows))
    models = {entry.name: entry for entry in load(environment=env(home)).model}
    assert models["qwen-plus"].deployments == ("small",)
    assert models["qwen-plus"].card.context_tokens == 32768
    assert models["mine"].card.context_tokens == 9


def test_load_replaces_an_engine_of_another_kind(home: Path) -> None:
    (home / "qwenbox.toml").write_text('[engine.small]\nkind = "echo"\n')
    assert type(load(environment=env(home)).engine["small"]).__name__ == "EchoConfig"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[server]\nprot = 1\n", "prot"),
        ("[server]\nport = 'x'\n", "server.port"),
        ("compat = 'loose'\n", "loose"),
        ("[engine.x]\nkind = 'nope'\n", "nope"),
        ("[[model]]\nname='a'\ndeployments=['gone']\ncard={context_tokens=1}\n", "gone"),
        ("[[model]]\nname='a'\naliases=['qwen-plus']\ndeployments=['small']\ncard={context_tokens=1}\n", "qwen-plus"),
        ("this is not toml", "qwenbox.toml"),
        ("profile = '../x'\n", "profile"),
    ],
)
def test_load_names_the_mistake(home: Path, text: str, told: str) -> None:
    (home / "qwenbox.toml").write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load(environment=env(home))
    assert told in str(wrong.value)


def test_load_hides_the_preset_key(home: Path) -> None:
    config = load(environment=env(home, QWENBOX_API_KEY="sk-hidden"))
    assert config.api_key is not None
    assert config.api_key.reveal() == "sk-hidden"
    assert "sk-hidden" not in repr(config)


@pytest.mark.parametrize("profile", profiles())
def test_every_shipped_profile_loads(home: Path, profile: str) -> None:
    assert load({"profile": profile}, env(home)).model


def test_laptop_contexts_never_fall_from_turbo_to_max(home: Path) -> None:
    cards = [entry.card for entry in load(environment=env(home)).model if entry.name in ("qwen-turbo", "qwen-plus", "qwen-max")]
    assert 3 == len(cards)
    for lower, higher in itertools.pairwise(cards):
        assert lower.context_tokens <= higher.context_tokens


PRICE = '[[price]]\nmodel = "{}"\nfrom = {}\ncurrency = "{}"\ntiers = [{{ input_micros = 7, output_micros = 8 }}]\n'


def test_load_merges_a_price_by_model_and_date_and_adds_new_ones(home: Path) -> None:
    shipped = load(environment=env(home)).price
    text = (
        PRICE.format("qwen-plus", "2025-01-01", "CNY")
        + PRICE.format("qwen-plus", "2031-01-01", "CNY")
        + PRICE.format("mine", "2031-01-01", "CNY")
    )
    (home / "qwenbox.toml").write_text(text)
    rows = load(environment=env(home)).price
    assert len(shipped) + 2 == len(rows)
    assert [7, 7] == [row.tiers[0].input_micros for row in rows if row.model == "qwen-plus"]


def test_load_leaves_out_shipped_prices_when_told(home: Path) -> None:
    (home / "qwenbox.toml").write_text("[money]\nshipped_prices = false\n" + PRICE.format("qwen-plus", "2025-01-01", "USD"))
    config = load(environment=env(home))
    assert (1, "USD") == (len(config.price), config.prices.currency)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PRICE.format("mine", "2025-01-01", "USD"), "'mine' in USD"),
        (PRICE.format("mine", "2025-01-01", "CNY") * 2, "two prices of 'mine'"),
        (PRICE.format("mine", "2025-01-01", "CNY").replace("7", "-7"), "negative"),
        (PRICE.format("mine", "soon", "CNY"), "qwenbox.toml"),
        (PRICE.format("mine", "'soon'", "CNY"), "from"),
    ],
)
def test_load_refuses_a_bad_price_book(home: Path, text: str, told: str) -> None:
    (home / "qwenbox.toml").write_text(text)
    with pytest.raises(ConfigError) as wrong:
        load(environment=env(home))
    assert told in str(wrong.value)
