"""The four timeouts, each its own error in every SDK, at its time; afterwards the upstream is left alone."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

import boxes
from boxes import Box
from sdk import forms
from sdk.forms import Refused
from support import flaky
from support.books import Books

SECONDS = 0.5
# What the upstream does so that this one runs out. (The connection's runs out before it could do anything.)
FATES = {"connect": flaky.GOOD, "first_token": "stall", "between_tokens": flaky.SILENT, "total": flaky.ENDLESS}
ENGINES = """
[retries]
attempts = 1
[breaker]
failure_share = 2
[engine.upstream]
kind = "openai_server"
address = "{url}"
[engine.full]
kind = "openai_server"
address = "http://127.0.0.1:{full}/v1"
"""
MODEL = """
[[model]]
name = "{name}"
deployments = ["{engine}"]
card = {{ context_tokens = 4096 }}
timeouts = {{ {timeouts} }}
"""
SDKS = ("Generation", "Generation stream", "Client native", "Client native stream", "OpenAI", "OpenAI stream")
ASKED = [{"role": "user", "content": "question-1"}]


@contextmanager
def taking_nobody() -> Iterator[int]:
    """A port whose server lets nobody in any more: its queue of connections is full, so the next one's first packet is dropped."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def wanted() -> dict[str, str]:
    return {"fate": flaky.GOOD}


@pytest.fixture(scope="module")
def upstream(wanted: dict[str, str]) -> Iterator[flaky.Upstream]:
    with flaky.serve(lambda *_: wanted["fate"]) as running:
        yield running


@pytest.fixture(scope="module")
def slow_box(upstream: flaky.Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    with taking_nobody() as full, boxes.serve(tmp_path_factory.mktemp("slow"), toml=toml(upstream.url, full)) as box:
        yield box


def toml(url: str, full: int) -> str:
    """A model for each timeout that has it, and two that have none: `slow` and `full`."""
    engines = {setting: "full" if setting == "connect" else "upstream" for setting in FATES}
    models = [(f"slow-{setting}", engine, f"{setting}_s = {SECONDS}") for setting, engine in engines.items()]
    models += [("slow", "upstream", ""), ("full", "full", "")]
    return ENGINES.format(url=url, full=full) + "".join(
        MODEL.format(name=name, engine=engine, timeouts=timeouts) for name, engine, timeouts in models
    )


def refusal(name: str, box: Box, model: str, **options: Any) -> Refused:
    """The SDK's error, of a reply or in the middle of a stream."""
    try:
        forms.EVERY[name](box, ASKED, model=model, **options)
    except Refused as refused:
        return refused
    except openai.APIError as error:
        body = error.body if isinstance(error.body, dict) else {}
        return Refused(None, error.code, str(body.get("message") or error.message), None)
    raise AssertionError("it was answered")


def check(name: str, setting: str, refused: Refused, seconds: float = SECONDS) -> None:
    is_openai = name.startswith("OpenAI")
    assert refused.code == ("request_timeout" if is_openai else "RequestTimeOut")
    assert f"within {seconds:g} s ({setting}_s)" in refused.message
    # In the middle of a stream the status has been sent.
    assert refused.status == 500 or "stream" in name


@pytest.mark.parametrize("setting", FATES)
@pytest.mark.parametrize("name", SDKS)
def test_each_timeout_is_its_own_error(
    name: str, setting: str, slow_box: Box, upstream: flaky.Upstream, wanted: dict[str, str], is_full: bool
) -> None:
    wanted["fate"] = FATES[setting]
    check(name, setting, refusal(name, slow_box, f"slow-{setting}"))
    assert upstream.is_idle()

    row = max(Books(slow_box).rows(), key=lambda row: row["arrived_at"])
    assert (f"slow-{setting}", "failed", "timeout") == (row["model"], row["outcome"], row["error_kind"])
    # The loop's clock is some milliseconds off; how late it may be depends on who else uses the machine.
    assert SECONDS * 0.9 <= row["duration_s"] <= SECONDS * (1.1 if is_full else 20.0)


@pytest.mark.parametrize("setting", FATES)
@pytest.mark.parametrize(("name", "how"), [("Generation", "headers"), ("OpenAI", "extra_headers"), ("OpenAI stream", "extra_headers")])
def test_a_request_sets_each_timeout_by_header(
    name: str, how: str, setting: str, slow_box: Box, upstream: flaky.Upstream, wanted: dict[str, str]
) -> None:
    wanted["fate"] = FATES[setting]
    model = "full" if setting == "connect" else "slow"
    check(name, setting, refusal(name, slow_box, model, **{how: {"X-Qwenbox-Timeout": f"{setting}=0.2"}}), 0.2)
    assert upstream.is_idle()


def test_the_requests_wish_wins_over_the_models(slow_box: Box, wanted: dict[str, str]) -> None:
    wanted["fate"] = FATES["first_token"]
    refused = refusal("OpenAI", slow_box, "slow-first_token", extra_headers={"X-Qwenbox-Timeout": "first_token=30, total=0.7"})
    check("OpenAI", "total", refused, 0.7)
