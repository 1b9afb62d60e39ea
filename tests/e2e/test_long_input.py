"""Long prompts: answered with the SDKs' own timeouts, and refused at once one token past the context."""

import time

import openai
import pytest
from dashscope import Generation

from boxes import Box

pytestmark = pytest.mark.e2e

SENTENCE = "The quick brown fox number {} jumps over the lazy dog near the river bank. "
QUESTION = "\nAnswer with one word: which animal jumps?"


def prompt(tokens: int) -> str:
    """At least that many tokens of text."""
    return "".join(SENTENCE.format(number) for number in range(tokens // 16)) + QUESTION


@pytest.mark.timeout(2_400)
def test_a_long_prompt_answers_streamed_and_whole(weights_box: Box, is_full: bool) -> None:
    """More than 4,096 tokens always, 20,000 with full counts; both SDKs with their default timeouts."""
    text = prompt(17_500 if is_full else 3_650)
    client = openai.OpenAI(api_key=weights_box.key, base_url=weights_box.compatible, max_retries=0)
    messages = [{"role": "user", "content": text}]
    begun = time.monotonic()
    first_s, usage, answer = None, None, ""
    for chunk in client.chat.completions.create(
        model="qwen-turbo", messages=messages, stream=True, stream_options={"include_usage": True}, max_tokens=8, temperature=0
    ):
        usage = chunk.usage or usage
        if chunk.choices and chunk.choices[0].delta.content:
            first_s = first_s or time.monotonic() - begun
            answer += chunk.choices[0].delta.content
    # A whole answer says nothing while 20,000 tokens are read: its caller must wait longer than the SDK's 300 s (docs/engines.md).
    patience = {"request_timeout": 900} if is_full else {}
    # That takes minutes: with few counts the engine has read the prompt before.
    asked = [{"role": "user", "content": "Now. " + text if is_full else text}]
    whole = Generation.call(
        model="qwen-turbo",
        messages=asked,
        api_key=weights_box.key,
        base_address=weights_box.native,
        max_tokens=8,
        temperature=0,
        **patience,
    )
    passed_s = time.monotonic() - begun
    print(f"\n{usage.prompt_tokens} tokens: first token after {first_s:.1f} s, streamed and whole together {passed_s:.1f} s; {answer!r}")
    assert usage.prompt_tokens > (20_000 if is_full else 4_096)
    assert answer
    assert 200 == whole.status_code
    assert whole.output.choices[0].message.content


def test_one_token_past_the_context_is_refused_at_once_in_both_dialects(weights_box: Box, is_full: bool) -> None:
    client = openai.OpenAI(api_key=weights_box.key, base_url=weights_box.compatible, max_retries=0)
    text, limit = " a" * 40_000, 32_767
    begun = time.monotonic()
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="qwen-turbo", messages=[{"role": "user", "content": text}])
    native = Generation.call(
        model="qwen-turbo", messages=[{"role": "user", "content": text}], api_key=weights_box.key, base_address=weights_box.native
    )
    passed_s = time.monotonic() - begun
    print(f"\nboth refused after {passed_s:.2f} s")
    assert f"Range of input length should be [1, {limit}]" in refused.value.message
    assert (400, "InvalidParameter", f"Range of input length should be [1, {limit}]") == (native.status_code, native.code, native.message)
    # Reading it would take minutes.
    assert passed_s < (10 if is_full else 60)


def test_a_card_of_131072_is_kept_to_the_token(serve) -> None:
    """On echo, whose tokens can be counted out by hand: the longest prompt answers, one token more does not."""
    box = serve(profile="echo")
    client = openai.OpenAI(api_key=box.key, base_url=box.compatible, max_retries=0)

    def ask(words: int) -> openai.types.chat.ChatCompletion:
        return client.chat.completions.create(model="qwen-plus", messages=[{"role": "user", "content": " a" * words}], max_tokens=4)

    overhead = ask(10).usage.prompt_tokens - 10
    longest = ask(131_071 - overhead)
    assert 131_071 == longest.usage.prompt_tokens
    with pytest.raises(openai.BadRequestError) as refused:
        ask(131_072 - overhead)
    assert "Range of input length should be [1, 131071]" in refused.value.message
