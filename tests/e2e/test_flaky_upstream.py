"""A flaky upstream behind the box: clients without retries of their own see its answers, and nothing of its faults."""

import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from boxes import Box
from sdk import forms
from sdk.forms import Form, Refused
from support import flaky

SETTINGS = """
[retries]
attempts = 12
base_s = 0.02
longest_s = 0.5
budget_share = 1.0
[breaker]
failure_share = 0.8
least_attempts = 20
open_s = 0.5
"""
MODEL = """
[engine.upstream]
kind = "openai_server"
address = "{url}"
[[model]]
name = "flaky"
deployments = {deployments}
card = {{ context_tokens = 4096 }}
"""
# Generous, since the upstream shares this process with the clients: one that is merely slow must not look like one that stalls.
TIMEOUTS = "timeouts = { first_token_s = 2.0, total_s = 120 }\n"
CLIENTS = 16
# Of ordinary runs; full counts draw another one each time.
ITS_SEED = 20_261
FORMS: list[Form] = [forms.EVERY[name] for name in ("Generation", "Generation stream", "OpenAI", "OpenAI stream")]


def toml(upstream: flaky.Upstream, *deployments: str) -> str:
    return SETTINGS + MODEL.format(url=upstream.url, deployments=list(deployments)) + TIMEOUTS


def ask(form: Form, box: Box, question: str) -> str:
    """The answer's text, or "" for an error that the SDK has understood."""
    try:
        return form(box, [{"role": "user", "content": question}], model="flaky").first.text
    except (Refused, openai.APIError) as error:
        message = error.message or ""
        assert "broke off" in message or "ended" in message, message
        return ""


def test_flaky_upstream_is_not_seen_but_for_answers_cut_in_the_middle(serve, is_full: bool, capsys: pytest.CaptureFixture[str]) -> None:
    calls, seed = (1_000, random.randrange(1_000_000)) if is_full else (200, ITS_SEED)
    seed = int(os.environ.get("FLAKY_SEED", seed))
    with flaky.serve(flaky.drawn(seed)) as upstream:
        box = serve(toml=toml(upstream, "upstream"))
        asked = [(FORMS[number % len(FORMS)], f"question-{number}") for number in range(calls)]
        with ThreadPoolExecutor(CLIENTS) as clients:
            texts = clients.map(lambda each: ask(each[0], box, each[1]), asked)
            answers = dict(zip((question for _, question in asked), texts, strict=True))
        assert upstream.is_idle()

    fates = {question: upstream.fates[question] for question in answers}
    happened = Counter(fate for each in fates.values() for fate in each)
    with capsys.disabled():
        settings = (SETTINGS + TIMEOUTS).replace("\n", " ")
        print(f"\nflaky upstream, FLAKY_SEED={seed}: {calls} calls, attempts {dict(happened)}{settings}")
    for question, each in fates.items():
        assert set(each[:-1]) <= set(flaky.BEFORE), f"{question} was asked again after a first byte: {each}"
        assert each[-1] in (flaky.GOOD, flaky.CUT), f"{question} failed: {each}"
        assert answers[question] == ("" if each[-1] == flaky.CUT else f"Answer to {question}"), (question, each)


def test_an_upstream_that_is_down_is_replaced_and_taken_back(serve) -> None:
    with flaky.serve(lambda *_: flaky.GOOD) as upstream:
        box = serve(toml=toml(upstream, "upstream", "echo").replace("attempts = 12", "attempts = 2"))
        assert who_answers(box, "question-0") == "upstream"
    assert {who_answers(box, f"question-{number}") for number in range(30)} == {"echo"}

    with flaky.serve(lambda *_: flaky.GOOD, upstream.port) as upstream:
        while who_answers(box, "question-1") == "echo":
            pass  # until the breaker's time is over and a probe has found it well
        assert {who_answers(box, f"question-{number}") for number in range(2, 12)} == {"upstream"}


def who_answers(box: Box, question: str) -> str:
    with forms.openai_client(box) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="flaky", messages=[{"role": "user", "content": question}], extra_headers={"X-Qwenbox-Show": "deployment"}
        )
    return raw.headers["x-qwenbox-deployment"]
