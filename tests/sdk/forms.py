"""This is where every way to call the box through an official SDK has one name, and all their answers one shape.

A form is `ask(box, messages, **options)`: options are named as on the OpenAI wire and reach the SDK the way its users write them.
Failures become Refused, whichever way the SDK reports them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import dashscope
import openai
from dashscope.aigc import chat_completion
from dashscope.aigc.multimodal_conversation import AioMultiModalConversation
from dashscope.api_entities.aio_session import close_shared_aio_session
from dashscope.v2.errors import DashScopeError

from boxes import Box

MODEL = "qwen-turbo"
# What the laptop profile lists first, in its order: those that are talked with.
CATALOG = ["qwen-turbo", "qwen-plus", "qwen-max", "qwen-vl-plus", "qwen-vl-max", "qwen2.5-vl-3b-instruct"]
Messages: TypeAlias = list[dict[str, Any]]

# Options the openai SDK has no argument for.
_EXTRAS = frozenset({"top_k", "repetition_penalty", "enable_thinking", "thinking_budget"})
# Options dashscope's Completions.create has arguments for.
_COMPLETIONS_OWN = frozenset({"temperature", "top_p", "top_k", "stop", "max_tokens", "repetition_penalty"})
# Options the v2 client has no argument for, on any protocol.
_V2_PARAMETERS = frozenset({"max_completion_tokens", "frequency_penalty"})


@dataclass
class Said:
    """One choice. calls: (id, name, arguments) in order; tokens: those of the logprobs, None without."""

    text: str = ""
    reasoning: str = ""
    calls: list[list[str]] = field(default_factory=list)
    reason: str | None = None
    tokens: list[str] | None = None

    def add_calls(self, pieces: list[Mapping[str, Any]] | None) -> None:
        for piece in pieces or ():
            place = piece.get("index") or 0
            while len(self.calls) <= place:
                self.calls.append(["", "", ""])
            function = piece["function"]
            self.calls[place][0] = self.calls[place][0] or piece.get("id") or ""
            self.calls[place][1] += function.get("name") or ""
            self.calls[place][2] += function.get("arguments") or ""

    def add_logprobs(self, logprobs: Mapping[str, Any] | None) -> None:
        if logprobs and logprobs.get("content"):
            self.tokens = (self.tokens or []) + [entry["token"] for entry in logprobs["content"]]


@dataclass
class Outcome:
    """A whole answer. pieces: the texts of the first choice's stream, as the SDK handed them out; None when not streamed."""

    choices: list[Said]
    input_tokens: int
    output_tokens: int
    request_id: str
    pieces: list[str] | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def first(self) -> Said:
        return self.choices[0]


@dataclass
class Refused(Exception):
    """An error as the SDK told it. kind: the exception's class, or "" where the SDK returns its errors."""

    status: int | None
    code: str | None
    message: str
    request_id: str | None
    kind: str = ""


Form: TypeAlias = Callable[..., Outcome]


def point(box: Box) -> None:
    """Tell dashscope's 1.x classes where the box is, as the box's banner says: base URL and key."""
    dashscope.base_http_api_url = box.native
    dashscope.base_compatible_api_url = box.compatible
    dashscope.api_key = box.key


# --- dashscope 1.x -----------------------------------------------------------------------------------------------------


def _checked(response: Any) -> Any:
    if response.status_code != 200:
        raise Refused(response.status_code, response.code, response.message, response.request_id)
    return response


def _text_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(item.get("text", "") for item in content or ())


def _fold_native(responses: list[Any], *, is_cumulative: bool, is_streamed: bool = True) -> Outcome:
    """All responses of one call: pieces to add up, or each the whole so far."""
    choices: dict[int, Said] = {}
    spent: dict[int, int] = {}
    pieces: list[str] = []
    for response in responses:
        for choice in response.output["choices"]:
            said = choices.setdefault(choice.get("index", 0), Said())
            message = choice["message"]
            text = _text_of(message.get("content"))
            reasoning = message.get("reasoning_content") or ""
            if is_cumulative:
                said.text, said.reasoning = text, reasoning or said.reasoning
                said.calls = []
                # A frame without logprobs is no news of them: the SDK's last merged response has none.
                said.tokens = None if choice.get("logprobs") else said.tokens
            else:
                said.text += text
                said.reasoning += reasoning
            said.add_calls(message.get("tool_calls"))
            said.add_logprobs(choice.get("logprobs"))
            said.reason = choice["finish_reason"]
            spent[choice.get("index", 0)] = response.usage["output_tokens"]
            if choice.get("index", 0) == 0:
                pieces.append(text)
    usage = responses[-1].usage
    return Outcome(
        choices=[choices[index] for index in sorted(choices)],
        input_tokens=usage["input_tokens"],
        # A stream's frame tells of its own choice; the SDK's merge has added them up already.
        output_tokens=sum(spent.values()) if is_streamed and not is_cumulative else usage["output_tokens"],
        request_id=responses[-1].request_id,
        pieces=pieces if is_streamed else None,
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        reasoning_tokens=(usage.get("output_tokens_details") or {}).get("reasoning_tokens"),
    )


def generation(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    point(box)
    response = dashscope.Generation.call(model=model, messages=messages, result_format="message", **options)
    return _fold_native([_checked(response)], is_cumulative=False, is_streamed=False)


def _generation_stream(box: Box, messages: Messages, is_incremental: bool, model: str, options: dict[str, Any]) -> Outcome:
    point(box)
    responses = dashscope.Generation.call(
        model=model, messages=messages, result_format="message", stream=True, incremental_output=is_incremental, **options
    )
    return _fold_native([_checked(response) for response in responses], is_cumulative=not is_incremental)


def generation_stream(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    return _generation_stream(box, messages, True, model, options)


def generation_merged(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    """The caller wants the whole text so far in each response; this SDK asks for increments and adds them up itself."""
    return _generation_stream(box, messages, False, model, options)


def run(asked: Callable[[], Awaitable[Outcome]]) -> Outcome:
    """One asynchronous call on a loop of its own, the SDK's shared session closed with it."""

    async def asking() -> Outcome:
        try:
            return await asked()
        finally:
            await close_shared_aio_session()

    return asyncio.run(asking())


def aio_generation(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    point(box)

    async def asking() -> Outcome:
        response = await dashscope.AioGeneration.call(model=model, messages=messages, result_format="message", **options)
        return _fold_native([_checked(response)], is_cumulative=False, is_streamed=False)

    return run(asking)


def _aio_generation_stream(box: Box, messages: Messages, is_incremental: bool, model: str, options: dict[str, Any]) -> Outcome:
    point(box)

    async def asking() -> Outcome:
        responses = await dashscope.AioGeneration.call(
            model=model, messages=messages, result_format="message", stream=True, incremental_output=is_incremental, **options
        )
        return _fold_native([_checked(response) async for response in responses], is_cumulative=not is_incremental)

    return run(asking)


def aio_generation_stream(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    return _aio_generation_stream(box, messages, True, model, options)


def aio_generation_merged(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    return _aio_generation_stream(box, messages, False, model, options)


def conversation(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    point(box)
    response = dashscope.Conversation().call(model=model, messages=messages, result_format="message", **options)
    return _fold_native([_checked(response)], is_cumulative=False, is_streamed=False)


def _in_parts(messages: Messages) -> Messages:
    """The multimodal path's way to write a content: a list."""
    return [{**message, "content": [{"text": message["content"]}] if message.get("content") else []} for message in messages]


def multimodal(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    point(box)
    response = dashscope.MultiModalConversation.call(model=model, messages=_in_parts(messages), **options)
    return _fold_native([_checked(response)], is_cumulative=False, is_streamed=False)


def multimodal_stream(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    point(box)
    responses = dashscope.MultiModalConversation.call(
        model=model, messages=_in_parts(messages), stream=True, incremental_output=True, **options
    )
    return _fold_native([_checked(response) for response in responses], is_cumulative=False)


def aio_multimodal(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    point(box)

    async def asking() -> Outcome:
        response = await AioMultiModalConversation.call(model=model, messages=_in_parts(messages), **options)
        return _fold_native([_checked(response)], is_cumulative=False, is_streamed=False)

    return run(asking)


def completions(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    """dashscope's own class for the OpenAI-compatible path; it sends no `stream`, whatever it is told."""
    point(box)
    own = {name: value for name, value in options.items() if name in _COMPLETIONS_OWN}
    others = {name: value for name, value in options.items() if name not in _COMPLETIONS_OWN}
    completion = chat_completion.Completions.create(model=model, messages=messages, extra_body=others, **own)
    if completion.status_code != 200:
        # The class copies what it finds at the top of an error's body: on this wire the request id alone.
        raise Refused(completion.status_code, None, "", getattr(completion, "request_id", None))
    choices = [_said_by_compatible(plain(choice)) for choice in completion.choices]
    usage = completion.usage
    return Outcome(choices, usage["prompt_tokens"], usage["completion_tokens"], completion.id.removeprefix("chatcmpl-"))


def plain(value: Any) -> Any:
    """dashscope's dataclasses as dicts: they set attributes the server sent and no others."""
    if hasattr(value, "__dict__"):
        return {name: plain(item) for name, item in vars(value).items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


# --- dashscope 2.0 client ----------------------------------------------------------------------------------------------


@contextmanager
def _v2_errors():
    try:
        yield
    except DashScopeError as error:
        raise Refused(error.status_code, error.code, error.message, error.request_id, type(error).__name__) from error


def v2_client(box: Box, protocol: str = "native", **more: Any) -> dashscope.Client:
    base = box.native if protocol == "native" else box.compatible
    return dashscope.Client(api_key=box.key, base_url=base, protocol=protocol, **{"max_retries": 0, **more})


def v2_async_client(box: Box, protocol: str = "native", **more: Any) -> dashscope.AsyncClient:
    base = box.native if protocol == "native" else box.compatible
    return dashscope.AsyncClient(api_key=box.key, base_url=base, protocol=protocol, **{"max_retries": 0, **more})


def _v2_options(options: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in options.items() if name not in _V2_PARAMETERS}
    others = {name: value for name, value in options.items() if name in _V2_PARAMETERS}
    return {**own, "parameters": others} if others else own


def _v2_outcome(completion: Any, pieces: list[str] | None = None) -> Outcome:
    choices: list[Said] = []
    for choice in completion.choices:
        said = Said(text=choice.message.content or "", reasoning=choice.message.reasoning_content or "", reason=choice.finish_reason)
        said.add_calls([call.model_dump() for call in choice.message.tool_calls or ()])
        said.add_logprobs((choice.model_extra or {}).get("logprobs"))
        choices.append(said)
    usage = completion.usage.model_dump()
    prompt, output = usage.get("prompt_tokens_details"), usage.get("output_tokens_details") or usage.get("completion_tokens_details")
    return Outcome(
        choices,
        usage["input_tokens"],
        usage["output_tokens"],
        completion.request_id.removeprefix("chatcmpl-"),
        pieces,
        (prompt or {}).get("cached_tokens"),
        (output or {}).get("reasoning_tokens"),
    )


def _v2(box: Box, messages: Messages, protocol: str, model: str, options: dict[str, Any]) -> Outcome:
    with _v2_errors(), v2_client(box, protocol) as client:
        return _v2_outcome(client.chat.completions.create(model=model, messages=messages, **_v2_options(options)))


def _v2_stream(box: Box, messages: Messages, protocol: str, model: str, options: dict[str, Any]) -> Outcome:
    with _v2_errors(), v2_client(box, protocol) as client:
        stream = client.chat.completions.create(model=model, messages=messages, stream=True, **_v2_options(options))
        chunks = list(stream)
        return _v2_fold(chunks, stream.headers)


def _v2_fold(chunks: list[Any], headers: Mapping[str, str]) -> Outcome:
    choices: dict[int, Said] = {}
    spent: dict[int, int] = {}
    pieces: list[str] = []
    usage: dict[str, Any] = {}
    for chunk in chunks:
        usage = chunk.usage.model_dump() if chunk.usage else usage
        for choice in chunk.choices:
            said = choices.setdefault(choice.index, Said())
            said.text += choice.delta.content or ""
            said.reasoning += choice.delta.reasoning_content or ""
            said.add_calls([call.model_dump() for call in choice.delta.tool_calls or ()])
            said.add_logprobs((choice.model_extra or {}).get("logprobs"))
            said.reason = choice.finish_reason or said.reason
            if chunk.usage:
                spent[choice.index] = chunk.usage.output_tokens
            if choice.index == 0:
                pieces.append(choice.delta.content or "")
    output = usage.get("output_tokens_details") or usage.get("completion_tokens_details") or {}
    return Outcome(
        [choices[index] for index in sorted(choices)],
        usage["input_tokens"],
        # Native frames tell of their own choice, the OpenAI wire's last chunk of all.
        sum(spent.values()) if spent else usage["output_tokens"],
        headers["x-request-id"],
        pieces,
        (usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        output.get("reasoning_tokens"),
    )


def _v2_async(box: Box, messages: Messages, protocol: str, model: str, options: dict[str, Any]) -> Outcome:
    async def asking() -> Outcome:
        async with v2_async_client(box, protocol) as client:
            return _v2_outcome(await client.chat.completions.create(model=model, messages=messages, **_v2_options(options)))

    with _v2_errors():
        return run(asking)


def _v2_async_stream(box: Box, messages: Messages, protocol: str, model: str, options: dict[str, Any]) -> Outcome:
    async def asking() -> Outcome:
        async with v2_async_client(box, protocol) as client:
            stream = await client.chat.completions.create(model=model, messages=messages, stream=True, **_v2_options(options))
            return _v2_fold([chunk async for chunk in stream], stream.headers)

    with _v2_errors():
        return run(asking)


def _of(how: Callable[..., Outcome], protocol: str) -> Form:
    def form(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
        return how(box, messages, protocol, model, options)

    return form


# --- openai ------------------------------------------------------------------------------------------------------------


@contextmanager
def _openai_errors():
    try:
        yield
    except openai.APIStatusError as error:
        body = error.body if isinstance(error.body, dict) else {}
        raise Refused(error.status_code, error.code, body.get("message", ""), error.request_id, type(error).__name__) from error


def openai_client(box: Box, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(api_key=box.key, base_url=box.compatible, **{"max_retries": 0, **more})


def openai_async_client(box: Box, **more: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=box.key, base_url=box.compatible, **{"max_retries": 0, **more})


def _openai_options(options: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in options.items() if name not in _EXTRAS}
    return {**own, "extra_body": {name: value for name, value in options.items() if name in _EXTRAS}}


def _said_by_compatible(choice: Mapping[str, Any]) -> Said:
    message = choice["message"]
    said = Said(text=message.get("content") or "", reasoning=message.get("reasoning_content") or "", reason=choice.get("finish_reason"))
    said.add_calls([{**call, "index": place} for place, call in enumerate(message.get("tool_calls") or ())])
    said.add_logprobs(choice.get("logprobs"))
    return said


def _openai_outcome(completion: Any) -> Outcome:
    usage = completion.usage
    return Outcome(
        choices=[_said_by_compatible(choice.model_dump()) for choice in completion.choices],
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        request_id=completion.id.removeprefix("chatcmpl-"),
        cached_tokens=usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None,
        reasoning_tokens=usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None,
    )


def _openai_fold(chunks: list[Any]) -> Outcome:
    choices: dict[int, Said] = {}
    pieces: list[str] = []
    usage = chunks[-1].usage
    for chunk in chunks:
        for choice in chunk.choices:
            said = choices.setdefault(choice.index, Said())
            delta = choice.delta.model_dump()
            said.text += delta.get("content") or ""
            said.reasoning += delta.get("reasoning_content") or ""
            said.add_calls(delta.get("tool_calls"))
            said.add_logprobs(choice.logprobs.model_dump() if choice.logprobs else None)
            said.reason = choice.finish_reason or said.reason
            if choice.index == 0:
                pieces.append(delta.get("content") or "")
    return Outcome(
        choices=[choices[index] for index in sorted(choices)],
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        request_id=chunks[0].id.removeprefix("chatcmpl-"),
        pieces=pieces,
        cached_tokens=usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None,
        reasoning_tokens=usage.completion_tokens_details.reasoning_tokens if usage.completion_tokens_details else None,
    )


def openai_whole(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    with _openai_errors(), openai_client(box) as client:
        return _openai_outcome(client.chat.completions.create(model=model, messages=messages, **_openai_options(options)))


def openai_stream(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    with _openai_errors(), openai_client(box) as client:
        stream = client.chat.completions.create(
            model=model, messages=messages, stream=True, stream_options={"include_usage": True}, **_openai_options(options)
        )
        return _openai_fold(list(stream))


def openai_async(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    async def asking() -> Outcome:
        async with openai_async_client(box) as client:
            return _openai_outcome(await client.chat.completions.create(model=model, messages=messages, **_openai_options(options)))

    with _openai_errors():
        return run(asking)


def openai_async_stream(box: Box, messages: Messages, *, model: str = MODEL, **options: Any) -> Outcome:
    async def asking() -> Outcome:
        async with openai_async_client(box) as client:
            stream = await client.chat.completions.create(
                model=model, messages=messages, stream=True, stream_options={"include_usage": True}, **_openai_options(options)
            )
            return _openai_fold([chunk async for chunk in stream])

    with _openai_errors():
        return run(asking)


NATIVE: dict[str, Form] = {
    "Generation": generation,
    "Generation stream": generation_stream,
    "Generation stream merged": generation_merged,
    "AioGeneration": aio_generation,
    "AioGeneration stream": aio_generation_stream,
    "AioGeneration stream merged": aio_generation_merged,
    "Conversation": conversation,
    "MultiModalConversation": multimodal,
    "MultiModalConversation stream": multimodal_stream,
    "AioMultiModalConversation": aio_multimodal,
    "Client native": _of(_v2, "native"),
    "Client native stream": _of(_v2_stream, "native"),
    "AsyncClient native": _of(_v2_async, "native"),
    "AsyncClient native stream": _of(_v2_async_stream, "native"),
}
COMPATIBLE: dict[str, Form] = {
    "Completions": completions,
    "Client openai": _of(_v2, "openai"),
    "Client openai stream": _of(_v2_stream, "openai"),
    "AsyncClient openai": _of(_v2_async, "openai"),
    "AsyncClient openai stream": _of(_v2_async_stream, "openai"),
    "OpenAI": openai_whole,
    "OpenAI stream": openai_stream,
    "AsyncOpenAI": openai_async,
    "AsyncOpenAI stream": openai_async_stream,
}
EVERY: dict[str, Form] = {**NATIVE, **COMPATIBLE}
