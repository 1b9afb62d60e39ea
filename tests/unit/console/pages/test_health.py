"""What the page of health says of findings, figures and settings, without a browser."""

import ast
import inspect

import pytest

from qwenbox.client.shapes import CacheState
from qwenbox.client.system import DatabaseState, EngineChild, Finding, Setting, System
from qwenbox.console.pages.health import sentences
from qwenbox.console.pages.health.page import FIGURES, chosen, distinct, values
from qwenbox.console.texts import LANGUAGES, Texts
from qwenbox.server.admin import findings

CODES = sorted(
    {
        node.value
        for node in ast.walk(ast.parse(inspect.getsource(findings)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in sentences._SENTENCES
    }
)
CACHE = CacheState(
    is_enabled=True, place="database", scope="account", ttl_s=1.0, entries=7, bytes=1, most_bytes=9, oldest_at=None, calls=200, hits=50
)
SYSTEM = System(
    version="1.2",
    python="3.11",
    platform="Linux",
    started_at=0.0,
    uptime_s=3_720.4,
    profile="laptop",
    home="/h",
    workers=2,
    in_progress=3,
    memory_limit_bytes=8_000_000_000,
    disk_free_bytes=5_000_000_000,
    disk_total_bytes=10_000_000_000,
    valkey="down",
    database=DatabaseState(kind="sqlite", revision="1", bytes=2_500_000, is_open=True),
    cache=CACHE,
    processes=(),
    children=(EngineChild(engine="small", role="shared", is_ready=True, starts=1, restarts=0, memory_bytes=600_000_000),),
    queues=(),
    standings=(),
)


def test_every_code_of_the_box_has_its_sentence() -> None:
    assert set(CODES) == set(sentences._SENTENCES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_finding_is_said_with_its_facts(language) -> None:
    t = Texts(language)
    finding = Finding(
        check="weights",
        verdict="warning",
        found="English",
        todo="Do",
        code="weights_missing",
        facts={"title": "W", "models": "a, b", "name": "w"},
    )
    said = sentences.found(t, finding), sentences.todo(t, finding)
    assert {
        "en": ("W is not here, which a, b would use", "Fetch it on the page Models, or run: qwenbox pull w"),
        "zh-CN": ("缺少 W，a, b 需要它", "请在“模型”页面拉取，或运行：qwenbox pull w"),
    }[language] == said


def test_states_in_a_finding_are_words() -> None:
    finding = Finding(check="m", verdict="ok", found="", code="model_ok", facts={"model": "m", "states": "idle, down, odd"})
    assert "m: loads on first use, does not answer, odd" == sentences.found(Texts("en"), finding)


@pytest.mark.parametrize(("code", "facts"), [("new_code", {}), ("weights_missing", {"other": "x"})])
def test_finding_of_a_newer_box_is_said_in_its_own_words(code: str, facts: dict[str, str]) -> None:
    finding = Finding(check="x", verdict="failed", found="Something is so.", todo="Do this.", code=code, facts=facts)
    assert ("Something is so.", "Do this.") == (sentences.found(Texts("zh-CN"), finding), sentences.todo(Texts("zh-CN"), finding))


def test_model_is_not_told_apart_from_the_weights_it_lacks() -> None:
    def one(code: str, **facts: str) -> Finding:
        return Finding(check="", verdict="warning", found="", code=code, facts=facts)

    lacking, mute = one("weights_missing", models="a, b"), one("model_missing", model="c")
    assert [lacking, mute] == distinct([lacking, one("model_missing", model="a"), mute])
    assert [] == distinct([one("weights_fetching", models="a"), one("model_missing", model="a")])[1:]


def test_figures_are_those_of_the_box() -> None:
    told = values(Texts("en"), SYSTEM)
    assert FIGURES.keys() == told.keys()
    assert {
        "uptime": ("1 h 2 min", "qwenbox 1.2"),
        "requests": ("3", "2 workers"),
        "memory": ("600.0 MB", "of 8.0 GB for weights"),
        "disk": ("5.0 GB", "of 10.0 GB"),
        "database": ("2.5 MB", "sqlite"),
        "cache": ("7", "answered 25.0 % of calls"),
        "valkey": ("does not answer", "Valkey"),
    } == told


@pytest.mark.parametrize(
    ("text", "is_own", "names"),
    [("", False, ["a.port", "b.host"]), ("", True, ["b.host"]), ("port", False, ["a.port"]), ("example", False, ["b.host"])],
)
def test_settings_are_searched_by_name_and_value(text: str, is_own: bool, names: list[str]) -> None:
    settings = [
        Setting(name="a.port", value="8000", is_default=True, is_hidden=False),
        Setting(name="b.host", value='"Example"', is_default=False, is_hidden=False),
    ]
    assert names == [one.name for one in settings if chosen(one, text, is_own=is_own)]
