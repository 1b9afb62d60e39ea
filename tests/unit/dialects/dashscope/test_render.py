"""The rendered streams through the SDK's own parsers: sync, asyncio, and the 2.0 client. They decide."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator

import httpx
import msgspec
import pytest
import requests
from dashscope.api_entities.dashscope_response import GenerationResponse, MultiModalConversationResponse
from dashscope.common.utils import _handle_aio_stream, _handle_stream
from dashscope.utils.message_utils import merge_multimodal_single_response, merge_single_response
from dashscope.v2.errors import RateLimitError
from dashscope.v2.transport.sse import AsyncStream, Stream
from dashscope.v2.types.completions import ChatCompletion, ChatCompletionChunk, parse_chunk, parse_completion

from qwenbox.dialects.dashscope.render import HEARTBEAT, Manner, Shape, StreamReply, WholeReply
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import (
    ChatEvent,
    ChoiceFinished,
    Completed,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from qwenbox.terms.usage import Usage

ID = "902fee3b-f7f0-9a8c-96a1-6b4ea25af114"
SSE = {"content-type": "text/event-stream;charset=UTF-8"}
TOKEN = TokenLogprob(text="你", raw="你".encode(), logprob=-0.25, rivals=(TokenLogprob(text="您", raw="您".encode(), logprob=-2.0),))

TEXT: list[ChatEvent] = [
    Started(input_tokens=5, cached_tokens=3),
    TextDelta(text='你"\n', tokens=2),
    TextDelta(text="", tokens=1),
    TextDelta(text="\u2028好\x7f🙂", tokens=1),
    ChoiceFinished(reason=FinishReason.STOP, tokens=1),
    Completed(usage=Usage(input_tokens=5, output_tokens=5, cached_tokens=3)),
]
THOUGHT: list[ChatEvent] = [
    Started(input_tokens=5),
    ReasoningDelta(text="想", tokens=3),
    ReasoningDelta(text="完", tokens=1),
    TextDelta(text="答", tokens=1),
    TextDelta(text="案", tokens=1),
    ChoiceFinished(reason=FinishReason.LENGTH),
    Completed(usage=Usage(input_tokens=5, output_tokens=6, reasoning_tokens=4)),
]
CALLS: list[ChatEvent] = [
    Started(input_tokens=5),
    TextDelta(text="看", tokens=1),
    ToolCallDelta(call=0, id="call_a", name="now", arguments="", tokens=2),
    ToolCallDelta(call=0, arguments="{}", tokens=1),
    ToolCallDelta(call=1, id="call_b", name="then", arguments='{"a": ', tokens=2),
    ToolCallDelta(call=1, arguments='"\\n"}', tokens=1),
    ChoiceFinished(reason=FinishReason.TOOL_CALLS, tokens=1),
    Completed(usage=Usage(input_tokens=5, output_tokens=8)),
]
TWO: list[ChatEvent] = [
    Started(input_tokens=5),
    TextDelta(text="a", tokens=1, logprobs=(TOKEN,)),
    TextDelta(text="x", index=1, tokens=1, logprobs=(TOKEN,)),
    TextDelta(text="b", tokens=2, logprobs=(TOKEN,)),
    ChoiceFinished(reason=FinishReason.STOP, tokens=1),
    TextDelta(text="y", index=1, tokens=1, logprobs=(TOKEN,)),
    ChoiceFinished(reason=FinishReason.STOP, index=1, tokens=1),
    Completed(usage=Usage(input_tokens=5, output_tokens=7)),
]
MESSAGE = Manner(shape=Shape.MESSAGE)
CUMULATIVE = Manner(shape=Shape.MESSAGE, is_incremental=False)
PARTS = Manner(shape=Shape.PARTS)


def streamed(manner: Manner, events: list[ChatEvent], *, beats: bool = False) -> bytes:
    """The whole stream. beats: a heartbeat at every position between frames, before the first one too."""
    reply = StreamReply(ID, manner)
    beat = reply.heartbeat() if beats else b""
    return beat + b"".join(data + beat for data in (reply.event(event) for event in events) if data)


def sync_frames(data: bytes) -> Iterator[tuple[bool, int, dict]]:
    response = requests.Response()
    response.raw = io.BytesIO(data)
    for is_error, status, event in _handle_stream(response):
        yield is_error, status, msgspec.json.decode(event.data)


def aio_frames(data: bytes) -> list[tuple[bool, int, dict]]:
    class Response:
        content = aio_lines(data)

    async def collect() -> list[tuple[bool, int, dict]]:
        return [(is_error, status, msgspec.json.decode(line)) async for is_error, status, line in _handle_aio_stream(Response)]

    return asyncio.run(collect())


async def aio_lines(data: bytes) -> AsyncIterator[bytes]:
    """What iterating aiohttp's body gives: lines ending at LF and nowhere else."""
    for line in data.split(b"\n"):
        yield line + b"\n"


def v2_chunks(data: bytes) -> list[ChatCompletionChunk]:
    return list(Stream(httpx.Response(200, headers=SSE, content=data), parse_chunk))


def v2_async_chunks(data: bytes) -> list[ChatCompletionChunk]:
    async def collect() -> list[ChatCompletionChunk]:
        async def body() -> AsyncIterator[bytes]:
            yield data

        return [chunk async for chunk in AsyncStream(httpx.Response(200, headers=SSE, content=body()), parse_chunk)]

    return asyncio.run(collect())


def merged(data: bytes, n: int = 1) -> list[GenerationResponse]:
    """What Generation.call(stream=True, incremental_output=False) yields: the SDK's own merge of increments."""
    so_far: dict = {}
    yielded: list[GenerationResponse] = []
    for _, _, body in sync_frames(data):
        response = GenerationResponse(status_code=200, output=body["output"], usage=body["usage"], request_id=body["request_id"])
        parsed = GenerationResponse.from_api_response(response)
        result = merge_single_response(parsed, so_far, n)
        if result is True:
            yielded.append(parsed)
        elif isinstance(result, list):
            yielded += result
    return yielded


@pytest.mark.parametrize("manner", [MESSAGE, CUMULATIVE, PARTS, Manner(shape=Shape.TEXT), Manner(shape=Shape.TEXT, is_incremental=False)])
@pytest.mark.parametrize("events", [TEXT, THOUGHT, CALLS])
def test_heartbeats_are_invisible_to_every_parser(manner: Manner, events: list[ChatEvent]) -> None:
    quiet, beating = streamed(manner, events), streamed(manner, events, beats=True)
    assert HEARTBEAT not in quiet
    assert beating.startswith(HEARTBEAT)
    assert list(sync_frames(quiet)) == list(sync_frames(beating))
    assert aio_frames(quiet) == aio_frames(beating)
    assert v2_chunks(quiet) == v2_chunks(beating)
    assert v2_async_chunks(quiet) == v2_async_chunks(beating)


def test_all_parsers_see_the_same_text() -> None:
    data = streamed(MESSAGE, TEXT)
    sync = [body["output"]["choices"][0]["message"]["content"] for _, _, body in sync_frames(data)]
    aio = [body["output"]["choices"][0]["message"]["content"] for _, _, body in aio_frames(data)]
    v2 = [chunk.delta.content for chunk in v2_chunks(data)]
    assert ['你"\n', "\u2028好\x7f🙂", ""] == sync == aio == v2 == [chunk.delta.content for chunk in v2_async_chunks(data)]


def test_frame_is_the_services_own_byte_for_byte() -> None:
    reply = StreamReply(ID, MESSAGE)
    reply.event(Started(input_tokens=8))
    expected = (
        b'id:1\nevent:result\n:HTTP_STATUS/200\ndata:{"output":{"choices":[{"finish_reason":"null","index":0,"message":'
        b'{"role":"assistant","content":"1"}}]},"usage":{"input_tokens":8,"output_tokens":1,"total_tokens":9},'
        b'"request_id":"902fee3b-f7f0-9a8c-96a1-6b4ea25af114"}\n\n'
    )
    assert expected == reply.event(TextDelta(text="1", tokens=1))


def test_ids_count_from_one() -> None:
    lines = streamed(MESSAGE, TEXT).decode().split("\n")
    assert ["id:1", "id:2", "id:3"] == [line for line in lines if line.startswith("id:")]


def test_usage_is_in_every_frame_and_ends_with_the_true_one() -> None:
    usages = [body["usage"] for _, _, body in sync_frames(streamed(MESSAGE, TEXT))]
    assert [2, 4, 5] == [usage["output_tokens"] for usage in usages]
    assert [(5, 7), (5, 9), (5, 10)] == [(usage["input_tokens"], usage["total_tokens"]) for usage in usages]
    assert [3, 3, 3] == [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]


def test_last_frame_shows_what_the_engine_counted_when_deltas_said_less() -> None:
    events = [Started(input_tokens=5), TextDelta(text="a"), ChoiceFinished(reason=FinishReason.STOP)]
    data = streamed(MESSAGE, [*events, Completed(usage=Usage(input_tokens=6, output_tokens=9, reasoning_tokens=0, cached_tokens=1))])
    assert {
        "input_tokens": 6,
        "output_tokens": 9,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 1},
    } == list(sync_frames(data))[-1][2]["usage"]


def test_cumulative_text_is_what_the_sdk_merges_from_increments() -> None:
    merges = [response.output.choices[0].message.content for response in merged(streamed(MESSAGE, TEXT))]
    ours = [body["output"]["choices"][0]["message"]["content"] for _, _, body in sync_frames(streamed(CUMULATIVE, TEXT))]
    assert merges == ours


def test_cumulative_calls_are_what_the_sdk_merges_from_increments() -> None:
    merges = merged(streamed(MESSAGE, CALLS))[-1].output.choices[0]
    ours = list(sync_frames(streamed(CUMULATIVE, CALLS)))[-1][2]["output"]["choices"][0]
    assert ours["message"]["tool_calls"] == merges.message.tool_calls
    assert ours["message"]["content"] == merges.message.content
    assert [
        {"index": 0, "id": "call_a", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        {"index": 1, "id": "call_b", "type": "function", "function": {"name": "then", "arguments": '{"a": "\\n"}'}},
    ] == ours["message"]["tool_calls"]
    assert "tool_calls" == ours["finish_reason"] == merges.finish_reason


def test_cumulative_thinking_is_what_the_sdk_merges_from_increments() -> None:
    merges = [response.output.choices[0].message for response in merged(streamed(MESSAGE, THOUGHT))]
    ours = [body["output"]["choices"][0]["message"] for _, _, body in sync_frames(streamed(CUMULATIVE, THOUGHT))]
    assert [(m.content, m.reasoning_content) for m in merges] == [(m["content"], m["reasoning_content"]) for m in ours]
    assert ("答案", "想完") == (ours[-1]["content"], ours[-1]["reasoning_content"])


def test_two_choices_merge_into_one_answer_with_the_whole_usage() -> None:
    last = merged(streamed(Manner(shape=Shape.MESSAGE, n=2), TWO), n=2)[-1]
    assert ["ab", "xy"] == [choice["message"]["content"] for choice in last.output.choices]
    assert {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12} == last.usage
    assert [2, 2] == [len(choice["logprobs"]["content"]) for choice in last.output.choices]


def test_content_lists_merge_in_the_sdk() -> None:
    so_far: dict = {}
    last = None
    for _, _, body in sync_frames(streamed(PARTS, THOUGHT)):
        response = GenerationResponse(status_code=200, output=body["output"], usage=body["usage"], request_id=body["request_id"])
        last = MultiModalConversationResponse.from_api_response(response)
        merge_multimodal_single_response(last, so_far, 1)
    assert [{"text": "答案"}] == last.output.choices[0].message.content


def test_v2_client_reads_calls_from_deltas() -> None:
    pieces = [call for chunk in v2_chunks(streamed(MESSAGE, CALLS)) for call in chunk.delta.tool_calls or ()]
    assert ["now", None, "then", None] == [piece.function.name for piece in pieces]
    assert '{}{"a": "\\n"}' == "".join(piece.function.arguments for piece in pieces)


def test_v2_client_reads_a_whole_answer() -> None:
    reply = WholeReply(ID, MESSAGE)
    body = b"".join(reply.event(event) for event in CALLS)
    answer: ChatCompletion = parse_completion(msgspec.json.decode(body))
    assert "看" == answer.output_text
    assert ["now", "then"] == [call.function.name for call in answer.choices[0].message.tool_calls]
    assert 8 == answer.usage.output_tokens


def test_whole_reply_is_silent_until_completed() -> None:
    reply = WholeReply(ID, MESSAGE)
    assert [b""] * (len(TEXT) - 1) == [reply.event(event) for event in TEXT[:-1]]
    assert b"" == reply.heartbeat()
    body = msgspec.json.decode(reply.event(TEXT[-1]))
    assert {"output", "usage", "request_id"} == set(body)


def test_text_format_has_neither_choices_nor_thoughts() -> None:
    reply = WholeReply(ID, Manner(shape=Shape.TEXT))
    body = msgspec.json.decode(b"".join(reply.event(event) for event in THOUGHT))
    assert {"finish_reason": "length", "text": "答案"} == body["output"]
    frames = [frame["output"] for _, _, frame in sync_frames(streamed(Manner(shape=Shape.TEXT), THOUGHT))]
    assert [("null", "答"), ("null", "案"), ("length", "")] == [(frame["finish_reason"], frame["text"]) for frame in frames]


def test_forced_call_finishes_with_stop() -> None:
    manner = Manner(shape=Shape.MESSAGE, is_call_forced=True)
    assert "stop" == list(sync_frames(streamed(manner, CALLS)))[-1][2]["output"]["choices"][0]["finish_reason"]


def test_error_frame_is_understood_by_every_parser() -> None:
    reply = StreamReply(ID, MESSAGE)
    data = b"".join(reply.event(event) for event in TEXT[:2]) + reply.error(ApiError(ErrorKind.RATE_LIMITED))
    assert data.endswith(
        b'id:2\nevent:error\n:HTTP_STATUS/429\ndata:{"code":"Throttling.RateQuota","message":'
        b'"Requests rate limit exceeded, please try again later.","request_id":"902fee3b-f7f0-9a8c-96a1-6b4ea25af114"}\n\n'
    )
    assert [False, True] == [is_error for is_error, _, _ in sync_frames(data)] == [is_error for is_error, _, _ in aio_frames(data)]
    assert "Throttling.RateQuota" == list(sync_frames(data))[-1][2]["code"]
    with pytest.raises(RateLimitError):
        v2_chunks(data)


def test_stream_default_header_names_the_default_and_only_a_default() -> None:
    name = "x-qwenbox-stream-default"
    defaults = [Manner(shape=Shape.MESSAGE, is_incremental=is_incremental, is_default=True) for is_incremental in (True, False)]
    assert ["incremental", "cumulative"] == [StreamReply(ID, manner).head.headers[name] for manner in defaults]
    assert {} == StreamReply(ID, MESSAGE).head.headers


def test_cumulative_frame_holds_all_of_a_long_answer() -> None:
    reply = StreamReply(ID, CUMULATIVE)
    reply.event(Started(input_tokens=1))
    for _ in range(2_000):
        frame = reply.event(TextDelta(text='"\n好', tokens=1))
    body = msgspec.json.decode(frame.split(b"data:", 1)[1])
    assert '"\n好' * 2_000 == body["output"]["choices"][0]["message"]["content"]
