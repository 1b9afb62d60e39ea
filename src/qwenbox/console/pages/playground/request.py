"""This is where a conversation and what a visitor has set become the one request that is sent, and shown as code."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import jsonschema_rs
import msgspec

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
Body: TypeAlias = dict[str, Json]
Format: TypeAlias = Literal["text", "json_object", "json_schema"]
Choice: TypeAlias = Literal["auto", "none", "required"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_BYTE = re.compile(r" \(byte (\d+)\)$")


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """name: of the visitor's file. media_type: "image/png"."""

    name: str
    media_type: str
    data: bytes

    @property
    def url(self) -> str:
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode()}"


class Question(msgspec.Struct, kw_only=True):
    """What the visitor said; may be changed later."""

    text: str
    pictures: tuple[Picture, ...] = ()


class Call(msgspec.Struct, kw_only=True):
    """A tool's call by the model. result: what the visitor said that it gave; None: nothing yet."""

    id: str
    name: str
    arguments: str
    result: str | None = None


class Reply(msgspec.Struct, kw_only=True):
    """What a model said. It may call tools; once all have results, another reply follows."""

    text: str = ""
    calls: list[Call] = []


Turn: TypeAlias = Question | Reply


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set; None and "" leave it to the model. tools, schema: JSON as typed, checked before."""

    model: str
    system: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: tuple[str, ...] = ()
    enable_thinking: bool | None = None
    thinking_budget: int | None = None
    format: Format = "text"
    schema: str = ""
    tools: str = ""
    tool_choice: Choice = "auto"


class Wrong(Exception):
    """What was typed is not what it should be. told: English for `Texts`, with its values."""

    def __init__(self, told: str, **values: object) -> None:
        super().__init__(told.format(**values))
        self.told = told
        self.values = values


def body(wishes: Wishes, turns: Iterable[Turn]) -> Body:
    """An OpenAI-compatible chat request, streamed. Raises Wrong for a schema or tools that are not what they should be."""
    opening: list[Json] = [{"role": "system", "content": _sound(wishes.system)}] if wishes.system.strip() else []
    asked: Body = {"model": wishes.model, "messages": [*opening, *(message for turn in turns for message in _messages(turn))]}
    for name in ("temperature", "top_p", "top_k", "seed", "max_tokens", "presence_penalty", "repetition_penalty"):
        value: float | None = getattr(wishes, name)
        if value is not None:
            asked[name] = value
    if wishes.stop:
        asked["stop"] = [_sound(text) for text in wishes.stop]
    if wishes.enable_thinking is not None:
        asked["enable_thinking"] = wishes.enable_thinking
    if wishes.thinking_budget is not None and wishes.enable_thinking is not False:
        asked["thinking_budget"] = wishes.thinking_budget
    if wishes.format == "json_object":
        asked["response_format"] = {"type": "json_object"}
    elif wishes.format == "json_schema":
        found = schema(wishes.schema)
        asked["response_format"] = {"type": "json_schema", "json_schema": {"name": _schema_name(found), "schema": found, "strict": True}}
    if wishes.tools.strip():
        asked["tools"] = tools(wishes.tools)
        if wishes.tool_choice != "auto":
            asked["tool_choice"] = wishes.tool_choice
    return {**asked, "stream": True, "stream_options": {"include_usage": True}}


def count_body(asked: Body) -> bytes:
    """The same prompt as a question for its tokens: texts and tools; pictures would have to be read first."""
    messages: list[Json] = []
    system = ""
    for message in mappings(asked["messages"]):
        text = _text(message.get("content"))
        if message["role"] == "system":
            system = text
        elif message["role"] == "tool":
            block = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": text}
            messages.append({"role": "user", "content": [block]})
        elif message.get("tool_calls"):
            said: list[Json] = [{"type": "text", "text": text}] if text else []
            messages.append({"role": "assistant", "content": [*said, *(_tool_use(call) for call in mappings(message["tool_calls"]))]})
        else:
            messages.append({"role": message["role"], "content": text})
    counted: Body = {"model": asked["model"], "messages": messages}
    if system:
        counted["system"] = system
    if asked.get("tools"):
        counted["tools"] = [_counted_tool(tool) for tool in mappings(asked["tools"])]
    return msgspec.json.encode(counted)


def schema(text: str) -> Mapping[str, Json]:
    """A JSON schema as typed. Raises Wrong."""
    found = _json(text)
    if not isinstance(found, dict):
        raise Wrong("A JSON schema is an object: {example}", example='{"type": "object", …}')
    _check_schema(found)
    return found


def tools(text: str) -> list[Json]:
    """Tools as typed: a list of functions, bare or as the API takes them. Raises Wrong."""
    found = _json(text)
    given: list[Json] = [found] if isinstance(found, dict) else list(found) if isinstance(found, list) else []
    if not given:
        raise Wrong("Tools are a list: {example}", example='[{"name": …, "description": …, "parameters": …}]')
    return [_tool(tool, number) for number, tool in enumerate(given, 1)]


def mapping(value: Json) -> Mapping[str, Json]:
    """The object that stands there; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Json) -> list[Mapping[str, Json]]:
    """The objects of a list."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, Sequence) else []


def _tool(given: Json, number: int) -> Json:
    function = given.get("function", given) if isinstance(given, dict) else None
    if not isinstance(function, dict):
        raise Wrong("Tool {number} is no object.", number=number)
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Wrong("Tool {number} needs a name of letters, digits, _ and -.", number=number)
    parameters = function.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Wrong("The parameters of {name} are no JSON schema.", name=name)
    _check_schema(parameters)
    kept: dict[str, Json] = {"name": name, "description": str(function.get("description") or ""), "parameters": parameters}
    return {"type": "function", "function": {key: value for key, value in kept.items() if value not in ("", {})}}


def _json(text: str) -> Json:
    data = _sound(text).encode()
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        found = _BYTE.search(str(error))
        line = data[: int(found[1])].count(b"\n") + 1 if found else 1
        raise Wrong(
            "This is no JSON: line {line}, {reason}.", line=line, reason=_BYTE.sub("", str(error)).removeprefix("JSON is malformed: ")
        ) from error


def _check_schema(found: Mapping[str, Json]) -> None:
    try:
        jsonschema_rs.meta.validate(dict(found))
    except (ValueError, jsonschema_rs.ReferencingError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise Wrong("This is no JSON schema: {reason}", reason=reason[:200]) from error


def _schema_name(found: Mapping[str, Json]) -> str:
    title = found.get("title")
    return title if isinstance(title, str) and _NAME.fullmatch(title) else "answer"


def _messages(turn: Turn) -> list[Json]:
    if isinstance(turn, Question):
        if not turn.pictures:
            return [{"role": "user", "content": _sound(turn.text)}]
        pictures: list[Json] = [{"type": "image_url", "image_url": {"url": picture.url}} for picture in turn.pictures]
        return [{"role": "user", "content": [*pictures, {"type": "text", "text": _sound(turn.text)}]}]
    if not turn.calls:
        return [{"role": "assistant", "content": _sound(turn.text)}]
    calls: list[Json] = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _sound(call.arguments)}} for call in turn.calls
    ]
    results: list[Json] = [{"role": "tool", "tool_call_id": call.id, "content": _sound(call.result or "")} for call in turn.calls]
    return [{"role": "assistant", "content": _sound(turn.text), "tool_calls": calls}, *results]


def _sound(text: str) -> str:
    """Without halves of characters, which no request can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _text(content: Json) -> str:
    if isinstance(content, str):
        return content
    return "".join(str(part["text"]) for part in mappings(content) if part.get("type") == "text")


def _tool_use(call: Mapping[str, Json]) -> Json:
    function = mapping(call["function"])
    try:
        given: Json = msgspec.json.decode(str(function["arguments"]))
    except msgspec.DecodeError:
        given = None
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": mapping(given)}


def _counted_tool(tool: Mapping[str, Json]) -> Json:
    function = mapping(tool["function"])
    described: dict[str, Json] = {"description": function["description"]} if "description" in function else {}
    return {"name": function["name"], **described, "input_schema": function.get("parameters", {"type": "object"})}
