"""This is where a deterministic engine answers without weights: for tests, demos and console work.

What it says (everything else is the caller's own parameters at work):

- The answer is `Echo: ` and the last user turn's text. Drawn with a temperature above 0 (and top_p above 0, top_k not 1) a
  variant of four hex digits stands between, `Echo 3f9a: …`: it follows from seed, request and choice; without a seed from a count of calls,
  so that unseeded answers differ. Penalties change nothing.
- After tool results the answer is `Echo: ` and, per result since the last assistant turn, `NAME returned RESULT`.
- A partial assistant turn is continued with a space and the user's text; it cannot be combined with JSON.
- Tools: with `auto` a tool is called when its name stands in the last user turn as a word; a demanded call goes to the tool
  demanded, else to those named, else to the first. Arguments are a small valid instance of the tool's schema. Several
  calls only with parallel calls.
- json_object: `{"echo": TEXT}` (and `"variant"` when drawn). json_schema: a small valid instance.
- Of pictures it says what they are: size, form, a number that only the same bytes have (looking.py).
- Pictures are mosaics that follow from the request and its seed, stamped ECHO (pictures.py).
- Thinking comes first when enabled, a few sentences about the text, cut at the budget.

Its tokens are those of text.py. Input is counted as `count` says.
"""

import hashlib
import re
import zlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from itertools import count, takewhile, zip_longest
from types import TracebackType

import anyio
import anyio.lowlevel
import msgspec

from qwenbox.engines.echo import looking, vectors
from qwenbox.engines.echo.instances import instance_of
from qwenbox.engines.echo.pictures import Drawing
from qwenbox.engines.echo.text import Stops, count_of, tokens_of, told
from qwenbox.terms.chat import (
    AnyText,
    ChatRequest,
    JsonObject,
    JsonSchema,
    Message,
    Role,
    Sampling,
    TextPart,
    ToolAuto,
    ToolNamed,
    ToolNone,
    ToolSpec,
)
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.engine import Capacity, EngineFacts, Events, Health, HealthState, Token
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import (
    ChatDelta,
    ChatEvent,
    ChoiceFinished,
    Completed,
    FinishReason,
    ReasoningDelta,
    Started,
    ToolCallDelta,
)
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.model import Capability
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.usage import Usage

_MESSAGE_TOKENS = 4
_OPENING_TOKENS = 3
_TOOL_TOKENS = 8
_DELTAS_PER_CHECKPOINT = 64
_CAPABILITIES = frozenset(Capability)


class EchoConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="echo", tag_field="kind"):
    """context_tokens: input and one choice's output together. first_delay_s, delay_s: seconds before the first event, each delta.

    slots, kv_tokens: what it can hold at once, so that queues can be seen without weights; None holds everything.
    """

    context_tokens: int = 131_072
    first_delay_s: float = 0.0
    delay_s: float = 0.0
    slots: int | None = None
    kv_tokens: int | None = None


class Echo:
    """A ChatEngine, Completer, TokenCounter, Embedder, Reranker and TextSplitter; see the module for what it answers."""

    def __init__(self, config: EchoConfig) -> None:
        self._config = config
        self._unseeded = count(1)
        self._facts = EngineFacts(
            kind="echo",
            weights="echo (no weights)",
            context_tokens=config.context_tokens,
            identity=f"echo {config.context_tokens}",
            keeps_seeds=True,
            capabilities=_CAPABILITIES,
        )

    @property
    def facts(self) -> EngineFacts:
        return self._facts

    @property
    def capacity(self) -> Capacity:
        return Capacity(slots=self._config.slots, kv_tokens=self._config.kv_tokens)

    async def health(self) -> Health:
        return Health(state=HealthState.READY)

    async def count(self, request: ChatRequest | CompletionRequest) -> int:
        """Tokens of every text of the request, and 4 per message, 8 per tool, 3 for the answer's opening; a raw prompt as it stands."""
        return _input_tokens(request)

    def chat(self, request: ChatRequest) -> Events:
        return _Answer(request, self._config, self._unseeded)

    def make(self, request: ImageRequest) -> Events:
        """Draws a mosaic that says what it is; see `pictures`."""
        return Drawing(request, (self._config.first_delay_s, self._config.delay_s), tokens_of)

    def complete(self, request: CompletionRequest) -> Events:
        """Answers a raw prompt like a user turn of its last line that is not blank."""
        return _Answer(request, self._config, self._unseeded)

    def embed(self, request: EmbeddingRequest) -> Events:
        """What the texts have in common by their words (vectors.py)."""
        return vectors.embed(request, count_of)

    def rerank(self, request: RerankRequest) -> Events:
        return vectors.rerank(request, count_of)

    @property
    def has_own_vocabulary(self) -> bool:
        return True

    async def count_texts(self, texts: Sequence[str], *, has_controls: bool = False) -> list[int] | None:
        return list(map(count_of, texts))

    async def split_texts(self, texts: Sequence[str]) -> list[Token] | None:
        return [Token(id=zlib.crc32(token.encode("utf-8", "replace")), text=token) for text in texts for token in tokens_of(text)]


class _Answer:
    """One call: checked on entry, played while it is iterated."""

    def __init__(self, request: ChatRequest | CompletionRequest, config: EchoConfig, unseeded: Iterator[int]) -> None:
        self._request = request
        self._config = config
        self._unseeded = unseeded
        self._events: AsyncGenerator[ChatEvent] | None = None

    async def __aenter__(self) -> AsyncGenerator[ChatEvent]:
        request = self._request
        input_tokens = _input_tokens(request)
        if input_tokens > self._config.context_tokens - 1:
            raise ApiError(ErrorKind.CONTEXT_TOO_LONG, f"Range of input length should be [1, {self._config.context_tokens - 1}]")
        room = min(request.max_output_tokens or self._config.context_tokens, self._config.context_tokens - input_tokens)
        if isinstance(request, ChatRequest):
            request = looking.described(request)
        variants = _variants(request, self._unseeded)
        choices = [_choice(request, room, index, variant) for index, variant in enumerate(variants)]
        self._events = self._play(input_tokens, choices)
        return self._events

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._events is not None:
            await self._events.aclose()

    async def _play(self, input_tokens: int, choices: list[Iterator[ChatDelta | ChoiceFinished]]) -> AsyncGenerator[ChatEvent]:
        config = self._config
        if config.first_delay_s:
            await anyio.sleep(config.first_delay_s)
        chat = self._request if isinstance(self._request, ChatRequest) else None
        image_tokens = looking.tokens(chat) if chat else None
        yield Started(input_tokens=input_tokens, cached_tokens=0, image_tokens=image_tokens)
        output_tokens = reasoning_tokens = 0
        for played, event in enumerate(choices[0] if len(choices) == 1 else _in_turns(choices), 1):
            if config.delay_s:
                await anyio.sleep(config.delay_s)
            elif played % _DELTAS_PER_CHECKPOINT == 0:
                # A long answer must not keep the loop from everybody else.
                await anyio.lowlevel.checkpoint()
            output_tokens += event.tokens
            if isinstance(event, ReasoningDelta):
                reasoning_tokens += event.tokens
            yield event
        yield Completed(
            picture_sizes=tuple((size.width, size.height) for size in looking.sizes(chat)) if chat and chat.wants_picture_sizes else (),
            usage=Usage(
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                cached_tokens=0,
                reasoning_tokens=reasoning_tokens if chat and chat.thinking.is_enabled else None,
                image_tokens=image_tokens,
            ),
        )


def _in_turns(choices: list[Iterator[ChatDelta | ChoiceFinished]]) -> Iterator[ChatDelta | ChoiceFinished]:
    """One event of each choice in turn, as engines do that decode in parallel."""
    for turn in zip_longest(*choices):
        yield from (event for event in turn if event is not None)


def _input_tokens(request: ChatRequest | CompletionRequest) -> int:
    if isinstance(request, CompletionRequest):
        return len(tokens_of(request.prompt)) + len(tokens_of(request.suffix or ""))
    total = _OPENING_TOKENS + (looking.tokens(request) or 0)
    for message in request.messages:
        total += _MESSAGE_TOKENS + sum(len(tokens_of(text)) for text in _texts(message))
    for tool in request.tools:
        total += _TOOL_TOKENS + len(tokens_of(tool.name)) + len(tokens_of(tool.description)) + len(tokens_of(tool.parameters.decode()))
    return total


def _texts(message: Message) -> Iterator[str]:
    for part in message.content:
        if isinstance(part, TextPart):
            yield part.text
    yield message.reasoning or ""
    yield message.name or ""
    for call in message.tool_calls:
        yield call.name
        yield call.arguments


def _variants(request: ChatRequest | CompletionRequest, unseeded: Iterator[int]) -> list[str]:
    """One variant per choice: "" for the likeliest answer, else four hex digits."""
    sampling = request.sampling
    if _is_greedy(sampling):
        return [""] * request.n
    origin = f"call {next(unseeded)}" if sampling.seed is None else f"seed {sampling.seed} {_asked(request)}"
    return [hashlib.sha256(f"{origin} choice {index}".encode("utf-8", "surrogatepass")).hexdigest()[:4] for index in range(request.n)]


def _is_greedy(sampling: Sampling) -> bool:
    return not sampling.temperature or sampling.top_k == 1 or sampling.top_p == 0


def _asked(request: ChatRequest | CompletionRequest) -> str:
    """The text that is echoed."""
    if isinstance(request, CompletionRequest):
        return next((line for line in reversed(request.prompt.splitlines()) if line.strip()), "")
    return next((message.text for message in reversed(request.messages) if message.role is Role.USER), "")


def _choice(request: ChatRequest | CompletionRequest, room: int, index: int, variant: str) -> Iterator[ChatDelta | ChoiceFinished]:
    """The events of one choice, its finish included. room: output tokens it may take, thinking included.

    What cannot be honoured is found here, before the first event.
    """
    if isinstance(request, CompletionRequest):
        return told(Stops.of(request), f"{_opening(variant)}{_asked(request)}", room, index)
    thought = _thought(request)[:room]
    room -= len(thought)
    if not room:
        return _with_thought(thought, index, iter([ChoiceFinished(reason=FinishReason.LENGTH, index=index)]))
    if called := _called(request):
        arguments = [instance_of(tool.parameters) for tool in called]
        return _with_thought(thought, index, _calls(request, list(zip(called, arguments, strict=True)), room, (index, variant)))
    return _with_thought(thought, index, told(Stops.of(request), _answer(request, variant), room, index))


def _opening(variant: str) -> str:
    return f"Echo {variant}: " if variant else "Echo: "


def _thought(request: ChatRequest) -> list[str]:
    if not request.thinking.is_enabled:
        return []
    tokens = tokens_of(
        f"The user says: {_asked(request)[:400]} I have {len(request.messages)} messages to go by. I will echo the last one."
    )
    return tokens[: request.thinking.budget_tokens]


def _with_thought(thought: list[str], index: int, answer: Iterator[ChatDelta | ChoiceFinished]) -> Iterator[ChatDelta | ChoiceFinished]:
    for token in thought:
        yield ReasoningDelta(text=token, index=index, tokens=1)
    yield from answer


def _answer(request: ChatRequest, variant: str) -> str:
    """The whole text of an answer without calls, before stops and limits."""
    is_partial = request.messages[-1].is_partial
    if is_partial and not isinstance(request.response_format, AnyText):
        text = "A partial message cannot be continued into a response_format; leave one of them out."
        raise ApiError(ErrorKind.INVALID_REQUEST, text, param="response_format")
    match request.response_format:
        case JsonObject():
            fields = {"echo": _asked(request)} | ({"variant": variant} if variant else {})
            return msgspec.json.encode(fields).decode()
        case JsonSchema(schema=schema):
            return instance_of(schema)
        case _:
            if is_partial:
                return f" {variant} {_asked(request)}" if variant else f" {_asked(request)}"
            results = list(takewhile(lambda message: message.role is Role.TOOL, reversed(request.messages)))
            quoted = "; ".join(f"{_tool_name(request, result)} returned {result.text}" for result in reversed(results))
            return f"{_opening(variant)}{quoted or _asked(request)}"


def _tool_name(request: ChatRequest, result: Message) -> str:
    calls = (call.name for message in request.messages for call in message.tool_calls if call.id == result.tool_call_id)
    return next(calls, None) or result.name or "The tool"


def _called(request: ChatRequest) -> list[ToolSpec]:
    """The tools this answer calls, in the order the user names them."""
    choice = request.tool_choice
    if not request.tools or isinstance(choice, ToolNone):
        return []
    if isinstance(choice, ToolNamed):
        called = [tool for tool in request.tools if tool.name == choice.name]
        if not called:
            raise ApiError(ErrorKind.INVALID_REQUEST, "tool_choice names a function that is not among the tools.", param="tool_choice")
        return called[:1]
    if isinstance(choice, ToolAuto) and request.messages[-1].role is not Role.USER:
        return []
    asked = _asked(request)
    found = {tool.name: place for tool in request.tools if (place := _named_at(tool.name, asked)) >= 0}
    named = sorted((tool for tool in request.tools if tool.name in found), key=lambda tool: found[tool.name])
    if not named and not isinstance(choice, ToolAuto):
        named = [request.tools[0]]
    return named if request.is_parallel_tool_calls else named[:1]


def _named_at(name: str, text: str) -> int:
    """Where the name stands as a word (Chinese needs no space around it), -1 for nowhere."""
    match = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.ASCII)
    return match.start() if match else -1


def _calls(
    request: ChatRequest, calls: list[tuple[ToolSpec, str]], room: int, place: tuple[int, str]
) -> Iterator[ChatDelta | ChoiceFinished]:
    """place: the choice's index and variant."""
    index, variant = place
    for number, (tool, arguments) in enumerate(calls):
        origin = f"{len(request.messages)} {number} {tool.name} {index} {variant} {_asked(request)}"
        call_id = f"call_{hashlib.sha256(origin.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
        yield ToolCallDelta(call=number, id=call_id, name=tool.name, index=index, tokens=1)
        room -= 1
        for token in tokens_of(arguments):
            if room <= 0:
                yield ChoiceFinished(reason=FinishReason.LENGTH, index=index)
                return
            room -= 1
            yield ToolCallDelta(call=number, arguments=token, index=index, tokens=1)
        if room <= 0 and number + 1 < len(calls):
            yield ChoiceFinished(reason=FinishReason.LENGTH, index=index)
            return
    yield ChoiceFinished(reason=FinishReason.TOOL_CALLS, index=index)
