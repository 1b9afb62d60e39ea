"""JSON from the smallest weights: every stop parses and validates by a validator the product does not use."""

import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from boxes import Box
from e2e.schemas import EVERYDAY, HEAVY, generated
from sdk import forms

pytestmark = pytest.mark.e2e

FORMS = (forms.openai_whole, forms.generation_stream, forms.generation, forms.openai_stream)
MAX_TOKENS = 512
TENTH_SEED = 20_251


@dataclass(frozen=True)
class Case:
    """One request. schema: None asks for json_object."""

    number: int
    prompt: str
    schema: dict[str, Any] | None

    @property
    def response_format(self) -> dict[str, Any]:
        if self.schema is None:
            return {"type": "json_object"}
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": self.schema}}


def cases(count: int, seed: int) -> Iterator[Case]:
    """Everyday schemas and random ones in turn."""
    for number in range(count):
        prompt, schema = EVERYDAY[number // 2 % len(EVERYDAY)] if number % 2 else generated(seed + number)
        yield Case(number, prompt, schema)


def fault(case: Case, reason: str | None, text: str) -> str | None:
    if reason != "stop":
        return None
    try:
        jsonschema.validate(json.loads(text), case.schema or {"type": "object"})
    except (ValueError, jsonschema.ValidationError) as error:
        return f"{case.number}: {str(error).splitlines()[0]}: {text[:200]}"
    return None


@pytest.mark.timeout(5_400)
def test_every_stop_validates_and_most_answers_stop_when_json_was_asked_for(weights_box: Box, is_full: bool) -> None:
    count, seed = (200, secrets.randbelow(10**9)) if is_full else (20, TENTH_SEED)
    print(f"\nschemas of seed {seed}")
    forms.point(weights_box)

    def ask(case: Case) -> tuple[Case, str | None, str, int]:
        form = FORMS[case.number // 2 % len(FORMS)]
        messages = [{"role": "user", "content": case.prompt}]
        answer = form(weights_box, messages, max_tokens=MAX_TOKENS, temperature=1.0, response_format=case.response_format)
        return case, answer.first.reason, answer.first.text, answer.output_tokens

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, cases(count, seed)))
    faults = [found for case, reason, text, _ in answers if (found := fault(case, reason, text))]
    stopped = sum(reason == "stop" for _, reason, _, _ in answers)
    spent = sorted(tokens for _, _, _, tokens in answers)
    print(f"{stopped} of {count} answers end in stop, {len(faults)} of them do not validate")
    print(f"output tokens: {spent[count // 2]} median, {spent[-1]} most")
    assert [] == faults
    assert {"stop", "length"} >= {reason for _, reason, _, _ in answers}
    assert stopped >= 0.95 * count


@pytest.mark.timeout(1_800)
def test_box_answers_or_refuses_soon_when_a_schema_is_heavy(weights_box: Box) -> None:
    """Nothing a schema says hangs the engine; a few tokens of each are generated."""
    slowest = 0.0
    for name, schema in HEAVY.items():
        started = time.monotonic()
        answer = forms.openai_whole(
            weights_box,
            [{"role": "user", "content": "JSON, please."}],
            max_tokens=16,
            response_format={"type": "json_schema", "json_schema": {"name": "heavy", "schema": schema}},
        )
        slowest = max(slowest, time.monotonic() - started)
        assert answer.first.reason in ("stop", "length"), name
    print(f"\nslowest of {len(HEAVY)} heavy schemas: {slowest:.1f} s for 16 tokens")


@pytest.mark.parametrize("form", [forms.openai_whole, forms.openai_stream, forms.generation, forms.generation_stream])
@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"$ref": "https://example.com/x.json"}, "not local"),
        ({"type": "object", "not": {"required": ["a"]}}, '"not"'),
        ({"type": "strnig"}, "strnig"),
        ({"type": "string", "pattern": "^a$", "minLength": 2}, "satisfies"),
        ({"allOf": [{"$ref": "#"}]}, "back to itself"),
    ],
)
def test_schema_is_refused_by_name_when_it_cannot_be_kept(weights_box: Box, form: forms.Form, schema: dict[str, Any], words: str) -> None:
    forms.point(weights_box)
    with pytest.raises(forms.Refused) as caught:
        form(
            weights_box,
            [{"role": "user", "content": "JSON, please."}],
            response_format={"type": "json_schema", "json_schema": {"name": "bad", "schema": schema}},
        )
    assert 400 == caught.value.status
    assert words in caught.value.message
