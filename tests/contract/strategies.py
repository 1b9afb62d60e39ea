"""This is where Hypothesis learns to make terms: requests a caller may write, and events an engine may say."""

from collections.abc import Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from qwenbox.terms.chat import (
    AnyText,
    ChatRequest,
    ImagePart,
    JsonObject,
    JsonSchema,
    Message,
    Part,
    Role,
    Sampling,
    TextPart,
    Thinking,
    ToolAuto,
    ToolCall,
    ToolNamed,
    ToolNone,
    ToolRequired,
    ToolSpec,
    VideoPart,
)
from qwenbox.terms.completion import CompletionRequest
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

# Any text JSON can carry, with the characters that naive line splitting and escaping trip over.
texts = st.text(
    st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from('"\\\n\r\u2028\u2029\x85\x00好🙂')), min_size=1, max_size=12
)
names = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(texts.filter(lambda key: key != "type"), json_values, max_size=3).map(msgspec.json.encode)


pixels = st.tuples(st.none() | st.integers(1, 2**20), st.none() | st.integers(2**20, 2**31 - 1))
pictures = st.builds(lambda url, wished: ImagePart(url=url, min_pixels=wished[0], max_pixels=wished[1]), texts, pixels)


@st.composite
def films(draw: st.DrawFn) -> VideoPart:
    """Frames share their pixels: no wire says them one by one."""
    least, most = draw(pixels)
    frames = tuple(ImagePart(url=url, min_pixels=least, max_pixels=most) for url in draw(st.lists(texts, min_size=4, max_size=5)))
    return VideoPart(frames=frames, fps=draw(st.none() | st.floats(0.1, 10)))


def contents(*, has_images: bool = True) -> st.SearchStrategy[tuple[Part, ...]]:
    text = st.builds(TextPart, text=texts)
    return st.lists(st.one_of(text, pictures, films()) if has_images else text, max_size=3).map(tuple)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Turns in which every tool result answers a call of the assistant's turn right before the results."""
    messages: list[Message] = []
    called: list[str] = []
    for _ in range(draw(st.integers(1, 4))):
        role = draw(st.sampled_from([Role.SYSTEM, Role.USER, Role.ASSISTANT, *([Role.TOOL] if called else [])]))
        calls: tuple[ToolCall, ...] = ()
        if role is Role.ASSISTANT:
            calls = tuple(draw(st.lists(st.builds(ToolCall, id=names, name=names, arguments=json_objects.map(bytes.decode)), max_size=2)))
        if role is not Role.TOOL:
            called = [call.id for call in calls]
        messages.append(
            Message(
                role=role,
                content=draw(contents(has_images=role is Role.USER)),
                name=draw(st.none() | names),
                tool_calls=calls,
                tool_call_id=draw(st.sampled_from(called)) if role is Role.TOOL else None,
                reasoning=draw(st.none() | texts) if role is Role.ASSISTANT else None,
            )
        )
    if messages[-1].role is Role.ASSISTANT:
        messages[-1] = msgspec.structs.replace(messages[-1], is_partial=draw(st.booleans()))
    return tuple(messages)


samplings = st.builds(
    Sampling,
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1),
    top_k=st.none() | st.integers(0, 100),
    presence_penalty=st.none() | st.floats(-2, 2),
    frequency_penalty=st.none() | st.floats(-2, 2),
    repetition_penalty=st.none() | st.floats(0, 10, exclude_min=True),
    seed=st.none() | st.integers(0, 2**63 - 1),
)
tool_specs = st.lists(
    st.builds(ToolSpec, name=names, description=st.just("") | texts, parameters=json_objects), max_size=3, unique_by=lambda tool: tool.name
)
formats = st.one_of(
    st.just(AnyText()),
    st.just(JsonObject()),
    st.builds(JsonSchema, name=st.just("") | names, schema=json_objects),
)


@st.composite
def chat_requests(draw: st.DrawFn) -> ChatRequest:
    """Complete requests within the ranges of level `documented`."""
    tools = tuple(draw(tool_specs))
    choices: list[Any] = [ToolAuto(), ToolNone()]
    if tools:
        choices += [ToolRequired(), *(ToolNamed(tool.name) for tool in tools)]
    stop: Sequence[str] = draw(st.lists(texts, max_size=3))
    return ChatRequest(
        model=draw(texts),
        messages=draw(conversations()),
        sampling=draw(samplings),
        max_output_tokens=draw(st.none() | st.integers(1, 10**6)),
        stop=tuple(stop),
        stop_tokens=()
        if stop
        else draw(st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3).map(tuple), max_size=2).map(tuple)),
        n=draw(st.integers(1, 4)),
        top_logprobs=draw(st.none() | st.integers(0, 5)),
        tools=tools,
        tool_choice=draw(st.sampled_from(choices)),
        is_parallel_tool_calls=draw(st.booleans()),
        response_format=draw(formats),
        is_high_resolution=draw(st.booleans()),
        thinking=draw(st.builds(Thinking, is_enabled=st.none() | st.booleans(), budget_tokens=st.none() | st.integers(1, 10**6))),
    )


completion_requests = st.builds(
    CompletionRequest,
    model=texts,
    prompt=st.just("") | texts,
    suffix=st.none() | texts,
    sampling=samplings,
    max_output_tokens=st.none() | st.integers(1, 10**6),
    stop=st.lists(texts, max_size=3).map(tuple),
    n=st.integers(1, 4),
    top_logprobs=st.none() | st.integers(0, 5),
)


def logprobs(rivals: int) -> st.SearchStrategy[TokenLogprob]:
    token = {"text": texts, "raw": st.binary(max_size=4), "logprob": st.floats(-100, 0)}
    return st.builds(TokenLogprob, **token, rivals=st.lists(st.builds(TokenLogprob, **token), max_size=rivals).map(tuple))


@st.composite
def _deltas(draw: st.DrawFn, index: int, top_logprobs: int | None, has_calls: bool) -> list[ChatEvent]:
    """One choice, said as a wire can say it: no empty delta, one token each unless logprobs tell how many."""
    events: list[ChatEvent] = [ReasoningDelta(text=text, index=index, tokens=1) for text in draw(st.lists(texts, max_size=2))]
    for text in draw(st.lists(texts, max_size=3)):
        found = () if top_logprobs is None else tuple(draw(st.lists(logprobs(top_logprobs), max_size=2)))
        events.append(TextDelta(text=text, index=index, tokens=len(found) or 1, logprobs=found))
    if not has_calls:
        events = [event for event in events if isinstance(event, TextDelta)]
    calls = draw(st.integers(0, 2)) if has_calls else 0
    for call in range(calls):
        events.append(
            ToolCallDelta(call=call, id=draw(names), name=draw(names), arguments=draw(st.just("") | texts), index=index, tokens=1)
        )
        events += [ToolCallDelta(call=call, arguments=text, index=index, tokens=1) for text in draw(st.lists(texts, max_size=2))]
    reasons = [FinishReason.TOOL_CALLS] if calls else [FinishReason.STOP, FinishReason.LENGTH, FinishReason.CONTENT_FILTER]
    events.append(ChoiceFinished(reason=draw(st.sampled_from(reasons)), index=index))
    return events


@st.composite
def answers(draw: st.DrawFn, n: int, top_logprobs: int | None, has_calls: bool = True) -> list[ChatEvent]:
    """A whole answer of `n` choices that take turns. has_calls: a chat; without it, a completion's text only."""
    waiting = [draw(_deltas(index, top_logprobs, has_calls)) for index in range(n)]
    events: list[ChatEvent] = [Started(input_tokens=draw(st.integers(1, 10**6)))]
    while any(waiting):
        turn = draw(st.sampled_from([queue for queue in waiting if queue]))
        events.append(turn.pop(0))
    counts = st.none() | st.integers(0, 100)
    usage = Usage(
        input_tokens=draw(st.integers(100, 10**6)),
        output_tokens=draw(st.integers(100, 10**6)),
        cached_tokens=draw(counts),
        reasoning_tokens=draw(counts),
        image_tokens=draw(counts),
    )
    events.append(Completed(usage=usage))
    return events


@st.composite
def conversed(draw: st.DrawFn) -> tuple[ChatRequest, list[ChatEvent]]:
    """A request that asks for this many choices and logprobs, and an answer to it."""
    n, top_logprobs = draw(st.integers(1, 4)), draw(st.none() | st.integers(0, 5))
    asked = ChatRequest(
        model=draw(texts),
        messages=(Message(role=Role.USER, content=(TextPart(text="json"),)),),
        n=n,
        top_logprobs=top_logprobs,
    )
    return asked, draw(answers(n, top_logprobs))


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`data` cut at these positions (taken modulo its length, any order)."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


cuts = st.lists(st.integers(0, 100_000), max_size=12)

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 5, 1.5, -0.0, 1e308, 2**31, 2**63, 2**64, 10**40, "", "x", "\x00", "\u2028", "a" * 2000, "null",
    "none", "required", "json", [], [[]], [1, "x"], ["x", 1], [[1], "x"], [[""]], {}, {"type": "function"}, {"type": "json_object"},
    {"type": "json_schema"}, {"$ref": "http://169.254.169.254/"}, {"a": {"b": {"c": []}}}, [{"role": "user"}], [{"type": "image_url"}],
)  # fmt: skip
RAW_HOSTILE: tuple[bytes, ...] = (
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"1" * 5000, b'"\\ud800"', b'"\xff"', b"[" * 3000 + b"]" * 3000,
    b'{"a":' * 90 + b"1" + b"}" * 90, b"nul", b"'x'", b'"\\u0000"', b"01", b"+1", b".5", b"{}{}", b"", b"\xef\xbb\xbf1", b'"\n"',
)  # fmt: skip
_MARK = "<hostile>"


@st.composite
def mutations(draw: st.DrawFn, valid: bytes) -> bytes:
    """`valid` (a JSON object) with one thing wrong, or at least odd, about it."""
    if draw(st.booleans()):
        return _broken(draw, valid)
    body = msgspec.json.decode(valid)
    node, key = draw(st.sampled_from(_places(body)))
    kind = draw(st.sampled_from(["replace", "replace", "raw", "delete", "add"]))
    if kind == "delete":
        del node[key]
    elif kind == "add" and isinstance(node, dict):
        node[draw(texts)] = draw(json_values)
    elif kind == "raw":
        node[key] = _MARK
        return msgspec.json.encode(body).replace(b'"' + _MARK.encode() + b'"', draw(st.sampled_from(RAW_HOSTILE)))
    else:
        node[key] = draw(st.sampled_from(HOSTILE) | json_values)
    return msgspec.json.encode(body)


def _broken(draw: st.DrawFn, valid: bytes) -> bytes:
    place = draw(st.integers(0, len(valid) - 1))
    kind = draw(st.sampled_from(["cut", "insert", "flip", "twice", "wrap"]))
    if kind == "cut":
        return valid[:place]
    if kind == "insert":
        return valid[:place] + draw(st.binary(min_size=1, max_size=4)) + valid[place:]
    if kind == "flip":
        return valid[:place] + bytes([valid[place] ^ (1 << draw(st.integers(0, 7)))]) + valid[place + 1 :]
    return valid + valid if kind == "twice" else b"[" + valid + b"]"


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) below `node`."""
    keys: Any = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    below = [place for key in keys for place in _places(node[key])]
    return [(node, key) for key in keys] + below
