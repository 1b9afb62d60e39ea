"""How much of prompts could be reused, and how much was: in receipts, in statements, and on the command line."""

import csv
import io
import subprocess
import sys
from typing import Any

import pytest

import boxes
from boxes import Box
from wire import COMPATIBLE_CHAT, NATIVE_CHAT, call, compatible, native, post

ON = boxes.NO_CACHE + "[prefixes]\nenabled = true\n"
SYSTEM = {"role": "system", "content": "You answer questions about rivers, in one word and without any further explanation. " * 8}


def turns(question: str) -> list[dict[str, str]]:
    return [SYSTEM, {"role": "user", "content": question}]


def billed(box: Box, question: str, **fields: Any) -> dict[str, Any]:
    """The receipt of one call."""
    asked = post(box, COMPATIBLE_CHAT, compatible(messages=turns(question), max_tokens=2, **fields), timeout_s=120)
    assert 200 == asked.status, asked.body
    return call(box, "GET", f"/qwenbox/v1/receipts/{asked.headers['x-request-id']}").json["call"]


def cli(box: Box, *arguments: str) -> str:
    environment = {**boxes.clean_environment(), "QWENBOX_HOME": str(box.home), "QWENBOX_PROFILE": box.profile, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-m", "qwenbox", *arguments], env=environment, capture_output=True, check=False)
    assert 0 == done.returncode, done.stderr.decode()
    return done.stdout.decode()


def test_usage_tells_how_much_of_prompts_earlier_ones_began_with(serve) -> None:
    box = serve(toml=ON)
    first, second = billed(box, "Which river flows through Paris?"), billed(box, "Which one through Rome?")
    heard = post(box, NATIVE_CHAT, native(input={"messages": turns("Which river flows through Paris?")}))
    whole = call(box, "GET", f"/qwenbox/v1/receipts/{heard.json['request_id']}").json["call"]

    assert (0, whole["input_tokens"]) == (first["reusable_tokens"], whole["reusable_tokens"])
    assert 0.9 * second["input_tokens"] < second["reusable_tokens"] < second["input_tokens"]
    reusable = second["reusable_tokens"] + whole["reusable_tokens"]
    (row,) = csv.DictReader(io.StringIO(cli(box, "usage", "--by", "model", "--csv")))
    assert str(reusable) == row["reusable_tokens"]
    table = cli(box, "usage", "--by", "model")
    assert ("reusable" in table, f"{reusable:,}" in table) == (True, True)
    assert f"{second['reusable_tokens']:,} could be reused, 0 were reused" in cli(box, "usage", "receipt", second["id"])


def test_nothing_is_looked_for_unless_it_is_switched_on(serve) -> None:
    box = serve()
    billed(box, "Which river flows through Paris?", temperature=1)
    assert billed(box, "Which one through Rome?", temperature=1)["reusable_tokens"] is None
    assert "reusable" not in cli(box, "usage")


@pytest.mark.e2e
def test_real_weights_reuse_what_is_said_to_be_reusable(weights_serve) -> None:
    box = weights_serve(ON)
    first, second = billed(box, "Which river flows through Paris?"), billed(box, "Which one through Rome?")
    print(f"\n{second['input_tokens']} input tokens, {second['reusable_tokens']} reusable, {second['cached_tokens']} reused")
    assert 0 == first["reusable_tokens"]
    assert 0.8 * second["input_tokens"] < second["reusable_tokens"] < second["input_tokens"]
    # By whole messages, while the engine goes by tokens: a few more or less.
    assert abs(second["cached_tokens"] - second["reusable_tokens"]) <= 0.1 * second["input_tokens"]
