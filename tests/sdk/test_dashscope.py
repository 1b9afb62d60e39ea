"""What only dashscope's own ways show: prompts and history, text format, default streams, response objects, models, its odd corners."""

import asyncio
import itertools
import json

import dashscope
import pytest
from dashscope.aigc import chat_completion
from dashscope.aigc.code_generation import UserRoleMessageParam
from dashscope.v2 import _quickstart

import wire
from boxes import Box
from sdk import forms

ASKED = [{"role": "user", "content": "讲个故事"}]
TOOL = {"type": "function", "function": {"name": "get_time", "description": "时间", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(autouse=True)
def pointed(box: Box) -> None:
    forms.point(box)


def test_bare_prompt_is_answered_in_text_format(box: Box):
    response = dashscope.Generation.call(model="qwen-turbo", prompt="讲个故事", temperature=0)

    assert (response.status_code, response.code, response.message) == (200, "", "")
    assert (response.output.text, response.output.finish_reason, response.output.choices) == ("Echo: 讲个故事", "stop", None)
    assert response.usage == {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18, "prompt_tokens_details": {"cached_tokens": 0}}


def test_messages_are_answered_in_message_format_when_nothing_is_said(box: Box):
    response = dashscope.Generation.call(model="qwen-turbo", messages=ASKED, temperature=0)

    choice = response.output.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Echo: 讲个故事", "stop")
    assert (response.output.text, response.output.finish_reason) == (None, None)


def test_messages_are_answered_in_text_format_at_strict_when_nothing_is_said(strict_box: Box):
    forms.point(strict_box)
    response = dashscope.Generation.call(model="qwen-turbo", messages=ASKED, temperature=0)

    assert (response.output.text, response.output.choices) == ("Echo: 讲个故事", None)


def test_format_is_kept_when_said(box: Box):
    text = dashscope.Generation.call(model="qwen-turbo", messages=ASKED, result_format="text", temperature=0)
    message = dashscope.Generation.call(model="qwen-turbo", prompt="讲个故事", result_format="message", temperature=0)

    assert text.output.text == message.output.choices[0].message.content == "Echo: 讲个故事"


def test_prompt_follows_messages_when_both_come(box: Box):
    response = dashscope.Generation.call(
        model="qwen-turbo", messages=[{"role": "system", "content": "简短"}], prompt="讲个故事", result_format="message", temperature=0
    )

    assert response.output.choices[0].message.content == "Echo: 讲个故事"


def test_history_is_read_when_it_comes_with_a_prompt(box: Box):
    history = [{"user": "甲", "bot": "乙"}, {"user": "丙", "bot": "丁"}]

    response = dashscope.Generation.call(model="qwen-turbo", prompt="戊", history=history, temperature=0)

    assert response.output.text == "Echo: 戊"
    # Five turns of one character each.
    assert response.usage.input_tokens == 3 + 5 * (4 + 1)


def test_conversation_remembers_when_auto_history_is_on(box: Box):
    talk = dashscope.Conversation()

    first = talk.call("qwen-turbo", prompt="甲", auto_history=True, temperature=0)
    second = talk.call("qwen-turbo", prompt="乙", auto_history=True, temperature=0)

    assert (first.output.text, second.output.text) == ("Echo: 甲", "Echo: 乙")
    # The first turn again, its answer, and one more turn of one character.
    assert second.usage.input_tokens == first.usage.input_tokens + (4 + first.usage.output_tokens) + (4 + 1)


def test_conversation_remembers_a_stream_when_it_is_cumulative(box: Box):
    """It takes the last chunk for the whole answer (dashscope 2.0.2), and passes incremental_output on to the server."""
    talk = dashscope.Conversation()

    chunks = list(talk.call("qwen-turbo", prompt="讲个故事", auto_history=True, stream=True, incremental_output=False, temperature=0))

    assert [chunks[0].output.text, chunks[-1].output.text] == ["Echo", STORY]
    assert talk.history == [{"user": [{"text": "讲个故事"}]}, {"bot": [{"text": STORY}]}]


STORY = "Echo: 讲个故事"


def streamed(**options) -> list[str]:
    responses = list(dashscope.Generation.call(model="qwen-turbo", messages=ASKED, stream=True, temperature=0, **options))
    assert {response.status_code for response in responses} == {200}
    return [response.output.choices[0].message.content for response in responses]


def test_stream_is_incremental_at_documented_when_nothing_is_said(box: Box):
    pieces = streamed()

    assert pieces == ["Echo", ":", " ", "讲", "个", "故", "事", ""]


def test_stream_is_cumulative_at_documented_when_tools_come(box: Box):
    pieces = streamed(tools=[TOOL])

    assert pieces == [STORY[:4], STORY[:5], STORY[:6], STORY[:7], STORY[:8], STORY[:9], STORY[:10], STORY]


def test_stream_is_cumulative_at_strict_when_nothing_is_said(strict_box: Box):
    forms.point(strict_box)
    responses = list(dashscope.Generation.call(model="qwen-turbo", messages=ASKED, stream=True, temperature=0))

    texts = [response.output.text for response in responses]
    assert texts == [STORY[:4], STORY[:5], STORY[:6], STORY[:7], STORY[:8], STORY[:9], STORY[:10], STORY]
    assert [response.output.finish_reason for response in responses] == ["null"] * 7 + ["stop"]


@pytest.mark.parametrize("level", ["box", "strict_box"])
def test_stream_is_what_was_asked_for_when_it_was_said(level: str, request: pytest.FixtureRequest):
    forms.point(request.getfixturevalue(level))

    increments = streamed(result_format="message", incremental_output=True)
    merged = streamed(result_format="message", incremental_output=False)

    assert "".join(increments) == merged[-1] == STORY
    assert all(later.startswith(sooner) for sooner, later in itertools.pairwise(merged))


def test_stream_tells_its_default_in_a_header_when_nothing_was_said(box: Box):
    sse = {"x-dashscope-sse": "enable"}
    silent = wire.post(box, wire.NATIVE_CHAT, wire.native(), headers=sse)
    tools = wire.post(box, wire.NATIVE_CHAT, wire.native({"tools": [TOOL]}), headers=sse)
    said = wire.post(box, wire.NATIVE_CHAT, wire.native({"incremental_output": True}), headers=sse)

    name = "x-qwenbox-stream-default"
    assert (silent.headers[name], tools.headers[name], said.headers.get(name)) == ("incremental", "cumulative", None)


def test_stream_shows_growing_usage_and_null_reasons_until_the_end(box: Box):
    responses = list(dashscope.Generation.call(model="qwen-turbo", messages=ASKED, stream=True, temperature=0))

    assert [response.usage.output_tokens for response in responses] == [1, 2, 3, 4, 5, 6, 7, 7]
    assert {response.usage.input_tokens for response in responses} == {11}
    assert [response.output.choices[0].finish_reason for response in responses] == ["null"] * (len(responses) - 1) + ["stop"]
    assert len({response.request_id for response in responses}) == 1


def test_forced_function_finishes_with_stop_on_the_native_wire(box: Box):
    choice = {"type": "function", "function": {"name": "get_time"}}

    response = dashscope.Generation.call(model="qwen-turbo", messages=ASKED, tools=[TOOL], tool_choice=choice, result_format="message")

    said = response.output.choices[0]
    assert (said.message.content, said.finish_reason, said.message.tool_calls[0]["function"]["name"]) == ("", "stop", "get_time")


def test_unknown_parameters_are_ignored(box: Box):
    response = dashscope.Generation.call(model="qwen-turbo", messages=ASKED, temperature=0, foo="bar", is_async=True)

    assert response.output.choices[0].message.content == STORY


def test_models_list_pages_through_the_catalog(catalog_box: Box):
    forms.point(catalog_box)
    whole = dashscope.Models.list(page=1, page_size=10)
    second = dashscope.Models.list(page=2, page_size=1)

    assert (whole.status_code, [model["model"] for model in whole.output["models"]][:6]) == (200, forms.CATALOG)
    assert ["qwen-plus"] == [model["model"] for model in second.output["models"]]
    assert len(forms.CATALOG) <= second.output["total"] == whole.output["total"]


def test_model_says_what_answers_when_it_is_got(catalog_box: Box):
    forms.point(catalog_box)
    found = dashscope.Models.get("qwen-turbo")
    missing = dashscope.Models.get("qwen-imaginary")

    assert (found.output["model"], found.output["deployments"][0]["engine"]) == ("qwen-turbo", "echo")
    assert found.output["model_info"]["context_window"] == 32_768
    assert missing.status_code == 404


@pytest.mark.parametrize("protocol", ["native"])
def test_v2_models_list_and_get(catalog_box: Box, protocol: str):
    with forms.v2_client(catalog_box, protocol) as client:
        assert [model.model for model in client.models.list().models][:6] == forms.CATALOG
        assert client.models.get("qwen-max").model == "qwen-max"
        with pytest.raises(dashscope.v2.errors.NotFoundError):
            client.models.get("qwen-imaginary")


def test_v2_stream_offers_text_and_final_message(box: Box):
    with forms.v2_client(box) as client:
        texts = client.chat.completions.create(model="qwen-turbo", messages=["讲个故事"], stream=True, temperature=0).text_stream
        assert "".join(texts) == STORY
        final = client.chat.completions.create(model="qwen-turbo", messages=["讲个故事"], stream=True, temperature=0).get_final_message()
        assert (final.output_text, final.usage.input_tokens, final.choices[0].finish_reason) == (STORY, 11, "stop")


@pytest.mark.parametrize("protocol", ["native", "openai"])
def test_v2_stream_repeats_the_text_so_far_when_asked_to(box: Box, protocol: str):
    with forms.v2_client(box, protocol) as client:
        chunks = client.chat.completions.create(
            model="qwen-turbo", messages=["讲个故事"], stream=True, incremental_output=False, temperature=0
        )
        texts = [chunk.delta.content for chunk in chunks if chunk.delta and chunk.delta.content]

    assert texts[-1] == STORY
    assert all(later.startswith(sooner) for sooner, later in itertools.pairwise(texts))


def test_v2_stream_is_cumulative_when_the_wire_parameter_says_so(box: Box):
    with forms.v2_client(box) as client:
        stream = client.chat.completions.create(
            model="qwen-turbo", messages=["讲个故事"], stream=True, parameters={"incremental_output": False}, temperature=0
        )
        assert stream.get_final_message().output_text == STORY


def test_v2_multimodal_chat_answers_text_parts(box: Box):
    with forms.v2_client(box) as client:
        messages = [{"role": "user", "content": [{"type": "text", "text": "讲个"}, {"type": "text", "text": "故事"}]}]
        completion = client.multimodal.chat.create(model="qwen-vl-plus", messages=messages, temperature=0)

    assert completion.output_text == STORY


def test_v2_client_returns_errors_when_told_not_to_raise(box: Box):
    with forms.v2_client(box, raise_on_error=False) as client:
        completion = client.chat.completions.create(model="qwen-turbo", messages=["甲"], temperature=9)

    assert (completion.is_error, completion.status_code, completion.code) == (True, 400, "InvalidParameter")


def test_one_call_chat_answers_when_the_environment_points_at_the_box(box: Box, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DASHSCOPE_HTTP_BASE_URL", box.native)
    monkeypatch.setenv("DASHSCOPE_API_KEY", box.key)
    # The module keeps one client for the whole process; this test's own is made from this test's environment.
    monkeypatch.setattr(_quickstart, "_client", None)

    answer = dashscope.chat("qwen-turbo", "讲个故事", temperature=0)
    _quickstart._client.close()

    assert answer.output_text == STORY


def test_async_calls_share_a_session_when_they_run_together(box: Box):
    async def asking() -> list[str]:
        calls = (
            dashscope.AioGeneration.call("qwen-turbo", messages=[{"role": "user", "content": str(n)}], temperature=0) for n in range(20)
        )
        answers = await asyncio.gather(*calls)
        await dashscope.close_shared_aio_session()
        return [answer.output.choices[0].message.content for answer in answers]

    assert asyncio.run(asking()) == [f"Echo: {number}" for number in range(20)]


def test_completions_stream_when_the_body_says_so(box: Box):
    """The class sends no `stream` of its own, and stumbles over [DONE] (dashscope 2.0.2); everything before it arrives."""
    chunks = chat_completion.Completions.create(model="qwen-turbo", messages=ASKED, stream=True, temperature=0, extra_body={"stream": True})
    texts: list[str] = []
    with pytest.raises(AttributeError):
        for chunk in chunks:
            texts += [choice["delta"]["content"] for choice in forms.plain(chunk.choices)]
    assert "".join(texts) == STORY


def test_code_generation_is_told_that_its_path_is_not_here(box: Box):
    """Its service was withdrawn; a client that still asks gets an error it can read."""
    response = dashscope.CodeGeneration.call(model="tongyi-lingma-v1", scene="custom", message=[UserRoleMessageParam(content="写一个函数")])

    assert response.status_code in (400, 404)
    assert response.code
    assert box.base_url in response.message or "input" in response.message


def test_plugins_and_search_are_refused_rather_than_ignored(box: Box):
    plugins = dashscope.Generation.call(model="qwen-turbo", messages=ASKED, plugins={"calculator": {}})
    search = dashscope.Generation.call(model="qwen-turbo", messages=ASKED, enable_search=True)

    assert (plugins.status_code, search.status_code) == (400, 400)
    assert search.message == "This model does not support enable_search."


def test_encryption_falls_back_to_plain_text_when_asked_for(box: Box):
    response = dashscope.Generation.call(model="qwen-turbo", messages=ASKED, enable_encryption=True, temperature=0)

    assert response.output.choices[0].message.content == STORY


def test_response_prints_as_json(box: Box):
    response = dashscope.Generation.call(model="qwen-turbo", messages=ASKED, temperature=0)

    assert json.loads(str(response))["output"]["choices"][0]["message"]["content"] == STORY
