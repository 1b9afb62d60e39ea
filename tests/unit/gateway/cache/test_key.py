"""Whatever shapes an answer is in its name: no field of a request can be changed, or added to the terms, without another name."""

from typing import Any

import msgspec
import pytest

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.cache.config import Scope
from qwenbox.gateway.cache.key import Names, is_wanted
from qwenbox.gateway.catalog import Catalog, Model, ModelEntry
from qwenbox.terms.caller import CachePolicy, Caller
from qwenbox.terms.chat import (
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
    ToolCall,
    ToolNamed,
    ToolRequired,
    ToolSpec,
    VideoPart,
)
from qwenbox.terms.completion import CompletionRequest
from support.gateways import CARD

CALLER = Caller(account_id="acc", key_id="key")
CALL = ToolCall(id="c", name="f", arguments="{}")
MESSAGE = Message(role=Role.USER, content=(TextPart(text="hello"),))
CHAT = ChatRequest(model="m", messages=(MESSAGE,), sampling=Sampling(temperature=0.0))
PROMPT = CompletionRequest(model="m", prompt="hello", sampling=Sampling(temperature=0.0))

# One or more other values of every field.
SAMPLING: dict[str, list[Any]] = {
    "temperature": [0.5, None],
    "top_p": [0.5],
    "top_k": [5],
    "presence_penalty": [0.5],
    "frequency_penalty": [0.5],
    "repetition_penalty": [1.5],
    "seed": [0, 7],
}
MESSAGES: dict[str, list[Any]] = {
    "role": [Role.SYSTEM],
    "content": [
        (),
        (TextPart(text="hello "),),
        (TextPart(text="hel"), TextPart(text="lo")),
        (ImagePart(url="data:hello"),),
        (VideoPart(frames=(ImagePart(url="data:hello"),)),),
        (VideoPart(frames=(ImagePart(url="data:hello"),), fps=2.0),),
    ],
    "name": ["hello", ""],
    "tool_calls": [(CALL,), (CALL, CALL), *((msgspec.structs.replace(CALL, **{name: "x"}),) for name in ToolCall.__struct_fields__)],
    "tool_call_id": ["c"],
    "reasoning": ["so"],
    "is_partial": [True],
}
TOOL = ToolSpec(name="f")
TOOLS: dict[str, list[Any]] = {"name": ["g"], "description": ["does"], "parameters": [b'{"type":"object"}']}
THINKING: dict[str, list[Any]] = {"is_enabled": [True, False], "budget_tokens": [5], "is_optional": [True]}
COMMON: dict[str, list[Any]] = {
    "model": ["other"],
    "sampling": [msgspec.structs.replace(CHAT.sampling, **{name: value}) for name in SAMPLING for value in SAMPLING[name]],
    "max_output_tokens": [5],
    "stop": [("a",), ("a", "b"), ("ab",)],
    "n": [2],
    "top_logprobs": [0, 1],
    "extensions": [{"vllm.guided_json": b"{}"}, {"vllm.guided_json": b"1"}],
    "defaults": [{"temperature": 0.0}, {"top_p": 1.0}],
}
CHATS: dict[str, list[Any]] = {
    **COMMON,
    "messages": [
        (),
        (MESSAGE, MESSAGE),
        *((msgspec.structs.replace(MESSAGE, **{name: value}),) for name in MESSAGES for value in MESSAGES[name]),
    ],
    "stop_tokens": [((1,),), ((1, 2),), ((1,), (2,))],
    "tools": [(TOOL,), *((msgspec.structs.replace(TOOL, **{name: value}),) for name in TOOLS for value in TOOLS[name])],
    "tool_choice": [ToolRequired(), ToolNamed(name="f"), ToolNamed(name="g")],
    "is_parallel_tool_calls": [True],
    "response_format": [JsonObject(), JsonSchema(schema=b"{}"), JsonSchema(name="n", schema=b"{}"), JsonSchema(schema=b"true")],
    "thinking": [msgspec.structs.replace(CHAT.thinking, **{name: value}) for name in THINKING for value in THINKING[name]],
    "is_high_resolution": [True],
    "wants_picture_sizes": [True],
}
PROMPTS: dict[str, list[Any]] = {**COMMON, "prompt": ["", "hello "], "suffix": ["", "end"]}


def model(*, context_tokens: int = 4096, card: Any = CARD, name: str = "m") -> Model:
    engine = Echo(EchoConfig(context_tokens=context_tokens))
    return Catalog((ModelEntry(name=name, card=card, deployments=("e",)),), {"e": engine}).every()[0]


def key(request: Any = CHAT, *, caller: Caller = CALLER, of: Model | None = None, scope: Scope = Scope.ACCOUNT) -> str | None:
    where = of or model()
    return Names(scope).key(caller, where, where.deployments[0], request)


@pytest.mark.parametrize(
    ("kind", "others"),
    [
        (ChatRequest, CHATS),
        (CompletionRequest, PROMPTS),
        (Sampling, SAMPLING),
        (Message, MESSAGES),
        (ToolSpec, TOOLS),
        (Thinking, THINKING),
    ],
)
def test_no_field_is_forgotten_here(kind: type[msgspec.Struct], others: dict[str, list[Any]]) -> None:
    assert set(kind.__struct_fields__) == set(others)


def test_no_part_of_a_message_is_forgotten_here() -> None:
    assert {TextPart, ImagePart, VideoPart} == set(Part.__args__)


@pytest.mark.parametrize(("request_", "others"), [(CHAT, CHATS), (PROMPT, PROMPTS)])
def test_key_differs_when_any_field_does(request_: Any, others: dict[str, list[Any]]) -> None:
    variants = [request_, *(msgspec.structs.replace(request_, **{name: value}) for name in others for value in others[name])]
    keys = [key(variant) for variant in variants]
    assert len(variants) == len(set(keys))
    assert None not in keys


def test_key_is_the_same_for_the_same_request_however_it_was_made() -> None:
    first = msgspec.structs.replace(CHAT, extensions={"a": b"1", "b": b"2"}, defaults={"top_p": 1.0, "temperature": 1.0})
    second = msgspec.structs.replace(CHAT, extensions={"b": b"2", "a": b"1"}, defaults={"temperature": 1.0, "top_p": 1.0})
    assert key(first) == key(second)


def test_prompt_has_another_key_than_a_chat_of_the_same_text() -> None:
    assert key(CHAT) != key(PROMPT)


def test_key_differs_for_other_weights_and_other_cards() -> None:
    others = [
        model(context_tokens=8192),
        model(card=msgspec.structs.replace(CARD, max_output_tokens=5)),
        model(card=msgspec.structs.replace(CARD, context_tokens=64)),
        model(name="*"),
    ]
    assert 1 + len(others) == len({key(), *(key(of=other) for other in others)})


def test_nothing_is_kept_when_nobody_knows_what_answers() -> None:
    class Unknown(Echo):
        @property
        def facts(self) -> Any:
            return msgspec.structs.replace(super().facts, identity="")

    unknown = Catalog((ModelEntry(name="m", card=CARD, deployments=("e",)),), {"e": Unknown(EchoConfig())}).every()[0]
    assert key(of=unknown) is None
    assert () == Names(Scope.ACCOUNT).keys(CALLER, unknown, CHAT)


def test_accounts_share_answers_only_when_the_box_says_so() -> None:
    other = Caller(account_id="other", key_id="key")
    assert key() != key(caller=other)
    assert key() == key(caller=Caller(account_id="acc", key_id="second"))
    assert key(scope=Scope.BOX) == key(caller=other, scope=Scope.BOX)
    assert key() != key(scope=Scope.BOX)


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(temperature=0.0), True),
        (Sampling(temperature=1.0, seed=0), True),
        (Sampling(temperature=1.0), False),
        (Sampling(temperature=0.0001), False),
        (Sampling(), False),
    ],
)
def test_calls_determined_by_their_request_are_wanted_by_themselves(sampling: Sampling, expected: bool) -> None:
    request = msgspec.structs.replace(CHAT, sampling=sampling)
    assert expected == is_wanted(request, CachePolicy.AUTO)
    assert is_wanted(request, CachePolicy.ALL)
    assert not is_wanted(request, CachePolicy.OFF)


@pytest.mark.parametrize(("url", "expected"), [("data:image/png;base64,AA==", True), ("https://pictures.example/a.png", False)])
def test_picture_behind_an_address_is_never_wanted(url: str, expected: bool) -> None:
    message = Message(role=Role.USER, content=(ImagePart(url=url),))
    assert expected == is_wanted(msgspec.structs.replace(CHAT, messages=(message,)), CachePolicy.ALL)


def test_fetched_picture_is_known_by_its_bytes_and_the_size_it_is_seen_at() -> None:
    one = ImagePart(url="sha256:1", data=b"1", media_type="image/png", width=10, height=10)
    others = [msgspec.structs.replace(one, url="sha256:2", data=b"2"), msgspec.structs.replace(one, max_pixels=4096)]
    asked = [msgspec.structs.replace(CHAT, messages=(Message(role=Role.USER, content=(picture,)),)) for picture in (one, *others)]

    assert all(is_wanted(request, CachePolicy.ALL) for request in asked)
    assert len({key(request) for request in asked}) == 3
