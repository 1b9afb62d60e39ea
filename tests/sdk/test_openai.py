"""What only the openai SDK's own ways show: chunks, legacy completions, models, parsed answers, raw responses, the /v1 address."""

import asyncio
from typing import Any

import openai
import pydantic
import pytest

import wire
from boxes import Box
from sdk import forms

ASKED: Any = [{"role": "user", "content": "讲个故事"}]
STORY = "Echo: 讲个故事"


@pytest.fixture
def client(box: Box):
    with forms.openai_client(box) as opened:
        yield opened


def test_whole_answer_has_the_services_fields(client: openai.OpenAI):
    completion = client.chat.completions.create(model="qwen-turbo", messages=ASKED, temperature=0)

    assert (completion.object, completion.model, completion.system_fingerprint) == ("chat.completion", "qwen-turbo", None)
    choice = completion.choices[0]
    assert (choice.index, choice.message.role, choice.message.content, choice.logprobs) == (0, "assistant", STORY, None)
    assert completion.usage.to_dict() == {
        "prompt_tokens": 11,
        "completion_tokens": 7,
        "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert completion.id == f"chatcmpl-{completion._request_id}"


def test_stream_begins_with_the_role_and_ends_with_the_reason(client: openai.OpenAI):
    chunks = list(client.chat.completions.create(model="qwen-turbo", messages=ASKED, stream=True, temperature=0))

    assert (chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content) == ("assistant", "")
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert [chunk.choices[0].delta.content for chunk in chunks[1:-1]] == ["Echo", ":", " ", "讲", "个", "故", "事"]
    assert {chunk.usage for chunk in chunks} == {None}
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for(client: openai.OpenAI):
    chunks = list(
        client.chat.completions.create(
            model="qwen-turbo", messages=ASKED, stream=True, stream_options={"include_usage": True}, temperature=0
        )
    )

    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens, chunks[-1].usage.total_tokens) == ([], 7, 18)
    assert {chunk.usage for chunk in chunks[:-1]} == {None}


def test_stream_ends_with_done_on_the_wire(box: Box):
    heard = wire.post(box, wire.COMPATIBLE_CHAT, wire.compatible(stream=True))

    frames = heard.body.split(b"\n\n")
    assert all(frame.startswith(b"data: {") for frame in frames[:-2])
    assert frames[-2:] == [b"data: [DONE]", b""]


def test_stream_can_be_left_early(client: openai.OpenAI):
    long = [{"role": "user", "content": "长" * 5_000}]
    with client.chat.completions.create(model="qwen-turbo", messages=long, stream=True) as stream:
        next(iter(stream))

    assert client.chat.completions.create(model="qwen-turbo", messages=ASKED, temperature=0).choices[0].message.content == STORY


def test_sdk_gathers_a_stream_into_a_completion(client: openai.OpenAI):
    with client.chat.completions.stream(model="qwen-turbo", messages=ASKED, temperature=0) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == STORY


class Fruit(pydantic.BaseModel):
    name: str
    price: float


class Fruits(pydantic.BaseModel):
    fruits: list[Fruit]


def test_sdk_parses_an_answer_into_a_model(client: openai.OpenAI):
    completion = client.chat.completions.parse(model="qwen-turbo", messages=ASKED, response_format=Fruits)

    assert isinstance(completion.choices[0].message.parsed, Fruits)


def test_sdk_parses_tool_arguments_into_a_model(client: openai.OpenAI):
    completion = client.chat.completions.parse(
        model="qwen-turbo", messages=ASKED, tools=[openai.pydantic_function_tool(Fruit)], tool_choice="required"
    )

    assert isinstance(completion.choices[0].message.tool_calls[0].function.parsed_arguments, Fruit)


def test_tool_call_streams_as_pieces_of_arguments(client: openai.OpenAI):
    tools: Any = [openai.pydantic_function_tool(Fruit)]
    chunks = client.chat.completions.create(model="qwen-turbo", messages=ASKED, tools=tools, tool_choice="required", stream=True)

    pieces = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert (pieces[0].function.name, pieces[0].id[:5]) == ("Fruit", "call_")
    assert {(piece.function.name, piece.id) for piece in pieces[1:]} == {(None, "")}
    assert len(pieces) > 3


def test_legacy_completion_continues_a_prompt(client: openai.OpenAI):
    completion = client.completions.create(model="qwen-turbo", prompt="讲个\n故事", temperature=0)

    assert (completion.object, completion.choices[0].text, completion.choices[0].finish_reason) == ("text_completion", "Echo: 故事", "stop")
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (5, 5)


def test_legacy_completion_streams(client: openai.OpenAI):
    chunks = list(client.completions.create(model="qwen-turbo", prompt="故事", temperature=0, stream=True))

    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "Echo: 故事"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_legacy_completion_honours_its_parameters(client: openai.OpenAI):
    cut = client.completions.create(model="qwen-turbo", prompt="故事", temperature=0, max_tokens=2)
    stopped = client.completions.create(model="qwen-turbo", prompt="故事", temperature=0, stop="事")
    filled = client.completions.create(model="qwen-turbo", prompt="故事", suffix="结尾", temperature=0)
    scored = client.completions.create(model="qwen-turbo", prompt="故事", temperature=0, logprobs=2)
    several = client.completions.create(model="qwen-turbo", prompt="故事", n=2, seed=3)

    assert (cut.choices[0].text, cut.choices[0].finish_reason) == ("Echo:", "length")
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == ("Echo: 故", "stop")
    assert filled.usage.prompt_tokens == 4
    assert "".join(scored.choices[0].logprobs.tokens) == "Echo: 故事"
    assert len({choice.text for choice in several.choices}) == 2


def test_models_list_and_get_say_what_answers(catalog_box: Box):
    with forms.openai_client(catalog_box) as client:
        listed = client.models.list()
        one = client.models.retrieve("qwen-plus")
        alias = client.models.retrieve("qwen-plus-latest")
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("qwen-imaginary")

    assert [model.id for model in listed][:6] == forms.CATALOG
    assert (one.id, one.object, one.deployments[0]["engine"]) == ("qwen-plus", "model", "echo")
    assert alias.id == "qwen-plus-latest"


def test_v1_is_the_same_as_compatible_mode(box: Box):
    with openai.OpenAI(api_key=box.key, base_url=f"{box.base_url}/v1", max_retries=0) as client:
        assert client.chat.completions.create(model="qwen-turbo", messages=ASKED, temperature=0).choices[0].message.content == STORY


def test_client_configures_itself_from_the_environment(box: Box, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_BASE_URL", box.compatible)
    monkeypatch.setenv("OPENAI_API_KEY", box.key)

    with openai.OpenAI() as client:
        assert client.chat.completions.create(model="qwen-turbo", messages=ASKED, temperature=0).choices[0].message.content == STORY


def test_raw_response_shows_the_request_id(client: openai.OpenAI):
    raw = client.chat.completions.with_raw_response.create(model="qwen-turbo", messages=ASKED)

    assert raw.headers["x-request-id"] == raw.parse().id.removeprefix("chatcmpl-")


def test_undocumented_openai_fields_are_ignored(client: openai.OpenAI):
    completion = client.chat.completions.create(
        model="qwen-turbo", messages=ASKED, temperature=0, user="me", metadata={"a": "b"}, store=False, service_tier="auto"
    )

    assert completion.choices[0].message.content == STORY


def test_max_completion_tokens_limits_the_answer(client: openai.OpenAI):
    completion = client.chat.completions.create(model="qwen-turbo", messages=ASKED, temperature=0, max_completion_tokens=2)

    assert (completion.choices[0].message.content, completion.choices[0].finish_reason) == ("Echo:", "length")


def test_developer_role_is_a_system_message(client: openai.OpenAI):
    messages: Any = [{"role": "developer", "content": "简短"}, *ASKED]

    assert client.chat.completions.create(model="qwen-turbo", messages=messages, temperature=0).choices[0].message.content == STORY


def test_many_async_calls_run_together(box: Box):
    async def asking() -> list[str]:
        async with forms.openai_async_client(box) as client:
            calls = (
                client.chat.completions.create(model="qwen-turbo", messages=[{"role": "user", "content": str(number)}], temperature=0)
                for number in range(50)
            )
            return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]

    assert asyncio.run(asking()) == [f"Echo: {number}" for number in range(50)]
