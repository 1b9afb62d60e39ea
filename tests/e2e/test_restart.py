"""What outlives a restart of the whole box: keys, and the text of a seed."""

import openai
import pytest

from boxes import Box

pytestmark = pytest.mark.e2e


def seeded(box: Box) -> str:
    client = openai.OpenAI(api_key=box.key, base_url=box.compatible, max_retries=0)
    answer = client.chat.completions.create(
        model="qwen-turbo",
        messages=[{"role": "user", "content": "Invent a name for a boat and say why."}],
        seed=20_261_123,
        temperature=1.0,
        max_tokens=64,
    )
    return answer.choices[0].message.content


def test_seed_gives_the_same_text_from_another_box(weights_box: Box, weights_serve) -> None:
    first, second = seeded(weights_box), seeded(weights_serve())
    print(f"\n{first!r}")
    assert first == second


def test_models_list_names_the_weights_that_answer(weights_box: Box) -> None:
    client = openai.OpenAI(api_key=weights_box.key, base_url=weights_box.compatible)
    listed = {model.id: model.model_extra for model in client.models.list()}
    weights = {name: listed[name]["deployments"][0]["weights"] for name in ("qwen-turbo", "qwen-plus", "qwen-max")}
    assert {
        "qwen-turbo": "Qwen2.5-Coder-0.5B-Instruct Q4_K_M",
        "qwen-plus": "Qwen2.5-Coder-1.5B-Instruct Q4_K_M",
        "qwen-max": "Qwen2.5-Coder-1.5B-Instruct Q4_K_M",
    } == weights
