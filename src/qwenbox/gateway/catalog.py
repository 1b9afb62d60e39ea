"""This is where a model's public name becomes its card and the deployments that can answer, best first."""

from collections.abc import AsyncIterator, Mapping
from operator import is_not
from typing import Protocol, TypeAlias, TypeVar

import msgspec

from qwenbox.terms.caller import Caller, Compat, SeedPolicy
from qwenbox.terms.chat import ChatRequest, Sampling
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.engine import Capacity, Embedder, Engine, ImageMaker, Reranker, TextCounter, TextEngine, TokenCounter, WeightsHolder
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.model import Capability, Choice, ModelCard
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.wishes import NO_PATIENCE, Patience

Number = TypeVar("Number", int, float)
TextRequest: TypeAlias = ChatRequest | CompletionRequest
Request: TypeAlias = TextRequest | EmbeddingRequest | RerankRequest | ImageRequest

# A deployment's model name that matches every public name (the echo profile).
ANY_MODEL = "*"

_TEXT_ONLY = "input content must be a string."
_NEUTRAL = Sampling(temperature=1.0, top_p=1.0, top_k=0, presence_penalty=0.0, frequency_penalty=0.0, repetition_penalty=1.0)


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A public model as the catalog's TOML says it. deployments: names of `[engine.NAME]` tables, best first.

    choice: which of them a call asks first. shares: how much of all calls each should have, beside the others' 1; 0: only when nobody
    else can. spill_after_s: a call that would wait longer for its turn goes on to the next deployment; None: it waits.
    timeouts: how long each part of a call may take, where its caller does not say.
    """

    name: str
    card: ModelCard
    deployments: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    created_at: int = 1_735_689_600
    choice: Choice = Choice.ORDERED
    shares: dict[str, float] = {}
    spill_after_s: float | None = None
    timeouts: Patience = NO_PATIENCE

    def __post_init__(self) -> None:
        for name, share in self.shares.items():
            if name not in self.deployments:
                raise ValueError(f"model {self.name!r} gives a share to {name!r}, which is none of its deployments")
            if not 0 <= share < float("inf"):
                raise ValueError(f"the share of {name!r} must be a number of at least 0")
        if self.spill_after_s is not None and not 0 <= self.spill_after_s < float("inf"):
            raise ValueError("spill_after_s must be a number of seconds of at least 0")


class Redacted(Protocol):
    """A request that may leave. notes: facts for the call's row, without what was found."""

    @property
    def request(self) -> Request: ...

    @property
    def notes(self) -> Mapping[str, object]: ...

    def restore(self, events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
        """The answer as if nothing had been taken out of the request."""
        ...


class Redactor(Protocol):
    """What keeps personal data from a deployment."""

    def redact(self, request: Request) -> Redacted | None:
        """None when there was nothing to hide. Raises ApiError(CONTENT_REJECTED) where it must not leave at all."""
        ...


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model runs. counter: the engine itself where it can count a prompt before it reads it; text_counter: where it can count
    texts at least. redactor: what requests pass on their way there. is_upstream: see EngineFacts.

    text, embedder, reranker, image_maker: the engine once more, as what it can be asked for. weights: once more, where files of weights may
    not be here. applied: see EngineFacts.
    """

    name: str
    engine: Engine
    counter: TokenCounter | None
    capacity: Capacity
    text_counter: TextCounter | None = None
    redactor: Redactor | None = None
    is_upstream: bool = False
    text: TextEngine | None = None
    embedder: Embedder | None = None
    reranker: Reranker | None = None
    image_maker: ImageMaker | None = None
    weights: WeightsHolder | None = None
    applied: str = ""

    @property
    def is_here(self) -> bool:
        """False where it waits for weights."""
        return self.weights is None or self.weights.is_here

    def done_to(self, request: Request) -> tuple[str, ...]:
        """What its engine does to this prompt, for the answer's head."""
        return (self.applied,) if self.applied and isinstance(request, ChatRequest) and request.has_pictures else ()


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A resolved model: its entry, and where it runs, best first."""

    entry: ModelEntry
    deployments: tuple[Deployment, ...]


class Catalog:
    """Names and aliases, looked up; a name is never read as a path, an address or a pattern."""

    def __init__(
        self, entries: tuple[ModelEntry, ...], engines: Mapping[str, Engine], redactors: Mapping[str, Redactor] | None = None
    ) -> None:
        """redactors: by the deployment's name, for those that have one."""
        hidden = redactors or {}
        self._models = {
            entry.name: Model(
                entry=entry, deployments=tuple(_deployment(name, engines[name], hidden.get(name)) for name in entry.deployments)
            )
            for entry in entries
        }
        aliases = {alias: model for model in self._models.values() for alias in model.entry.aliases}
        self._by_name = {**aliases, **self._models}
        self._partial: dict[str, Model] = {}

    def resolve(self, name: str, caller: Caller) -> Model:
        """Raises ApiError(MODEL_NOT_FOUND) for unknown names, and for those this key may not use (FORBIDDEN)."""
        model = self._by_name.get(name) or self._by_name.get(ANY_MODEL)
        if model is None:
            raise ApiError(ErrorKind.MODEL_NOT_FOUND, param=name)
        if not is_open_to(caller, name, model):
            raise ApiError(ErrorKind.FORBIDDEN, "Model access denied.", param="model")
        return model if len(model.deployments) == 1 else self._present(model)

    def every(self) -> tuple[Model, ...]:
        """All models by the catalog's order."""
        return tuple(self._models.values())

    def find(self, name: str) -> Model | None:
        """The model of that name or alias, None if there is none."""
        return self._by_name.get(name)

    def _present(self, model: Model) -> Model:
        """Without the deployments whose weights are not here, as long as another can answer; asked anew at every call, so that weights are
        used from the moment they are there."""
        present = [deployment for deployment in model.deployments if deployment.is_here]
        if len(present) in (0, len(model.deployments)):
            return model
        known = self._partial.get(model.entry.name)
        if known is None or len(known.deployments) != len(present) or any(map(is_not, known.deployments, present)):
            known = self._partial[model.entry.name] = msgspec.structs.replace(model, deployments=tuple(present))
        return known


def is_open_to(caller: Caller, name: str, model: Model) -> bool:
    """Whether the caller's key may use the model that this name leads to: its key has the model's own name, or the one that was asked for,
    be it an alias or one of the many that ANY_MODEL answers to."""
    return caller.models is None or model.entry.name in caller.models or name in caller.models


def _deployment(name: str, engine: Engine, redactor: Redactor | None) -> Deployment:
    facts = engine.facts
    return Deployment(
        name=name,
        engine=engine,
        counter=engine if isinstance(engine, TokenCounter) else None,
        capacity=engine.capacity,
        text_counter=engine if isinstance(engine, TextCounter) else None,
        redactor=redactor,
        is_upstream=facts.is_upstream,
        text=engine if isinstance(engine, TextEngine) else None,
        embedder=engine if isinstance(engine, Embedder) else None,
        reranker=engine if isinstance(engine, Reranker) else None,
        image_maker=engine if isinstance(engine, ImageMaker) else None,
        weights=engine if isinstance(engine, WeightsHolder) else None,
        applied=facts.applied,
    )


def complete_chat(request: ChatRequest, card: ModelCard, caller: Caller, compat: Compat) -> ChatRequest:
    """The request with everything its caller left to the model, checked against what the card can honour."""
    _check_writes(request, card)
    _check_capabilities(request, card)
    enabled = request.thinking.is_enabled
    thinks = card.is_thinking_default if enabled is None else enabled and Capability.THINKING in card.capabilities
    sampling, limit = _sampling(request.sampling, card, compat), _output_limit(request, card)
    defaults = _defaults(request, sampling, limit)
    return msgspec.structs.replace(
        request,
        sampling=sampling,
        max_output_tokens=limit,
        thinking=msgspec.structs.replace(request.thinking, is_enabled=thinks),
        extensions=_extensions(request, caller),
        defaults={**defaults, "is_enabled": thinks} if enabled is None else defaults,
    )


def complete_prompt(request: CompletionRequest, card: ModelCard, caller: Caller, compat: Compat) -> CompletionRequest:
    """As `complete_chat`, for a raw prompt."""
    _check_writes(request, card)
    if Capability.COMPLETION not in card.capabilities:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"The model {request.model} has no completions; use chat completions.", param="model")
    sampling, limit = _sampling(request.sampling, card, compat), _output_limit(request, card)
    return msgspec.structs.replace(
        request,
        sampling=sampling,
        max_output_tokens=limit,
        extensions=_extensions(request, caller),
        defaults=_defaults(request, sampling, limit),
    )


def complete_embedding(request: EmbeddingRequest, card: ModelCard) -> EmbeddingRequest:
    """As `complete_chat`, for texts that are to become vectors."""
    _check_endpoint(request, Capability.EMBEDDING, card)
    facts = card.vectors
    if len(request.texts) > facts.most_texts:
        text = f"Value error, batch size is invalid, it should not be larger than {facts.most_texts}.: input.contents"
        raise ApiError(ErrorKind.INVALID_REQUEST, text, param="input")
    if not facts.dimensions:
        return request
    if request.dimensions is None:
        return msgspec.structs.replace(request, dimensions=facts.dimensions[0], defaults={"dimensions": facts.dimensions[0]})
    if request.dimensions not in facts.dimensions:
        known = ", ".join(map(str, sorted(facts.dimensions)))
        text = f"The dimension {request.dimensions} is not one of {request.model}'s: {known}."
        raise ApiError(ErrorKind.INVALID_REQUEST, text, param="dimensions")
    return request


def complete_rerank(request: RerankRequest, card: ModelCard) -> RerankRequest:
    """As `complete_chat`, for documents that are to be ordered."""
    _check_endpoint(request, Capability.RERANK, card)
    if len(request.documents) > card.vectors.most_texts:
        text = f"Value error, batch size is invalid, it should not be larger than {card.vectors.most_texts}.: input.documents"
        raise ApiError(ErrorKind.INVALID_REQUEST, text, param="documents")
    return request


def complete_image(request: ImageRequest, card: ModelCard) -> ImageRequest:
    """As `complete_chat`, for a picture that is to be made."""
    _check_endpoint(request, Capability.IMAGE, card)
    facts = card.images
    if not 1 <= request.n <= facts.most_n:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"Range of n should be [1, {facts.most_n}]", param="n")
    if len(request.images) > facts.most_inputs:
        taken = f"at most {facts.most_inputs} pictures" if facts.most_inputs else "no picture"
        raise ApiError(ErrorKind.INVALID_REQUEST, f"The model {request.model} takes {taken} to draw from.", param="images")
    width, height = request.width or facts.width, request.height or facts.height
    if not (facts.least_side <= width <= facts.most_side and facts.least_side <= height <= facts.most_side):
        text = f"The sides of a picture should be in [{facts.least_side}, {facts.most_side}] pixels"
        raise ApiError(ErrorKind.INVALID_REQUEST, text, param="size")
    return msgspec.structs.replace(request, width=width, height=height)


def fit(request: TextRequest, input_tokens: int, card: ModelCard) -> int:
    """Output tokens that may follow a prompt of `input_tokens` within the card's context.

    Raises ApiError(CONTEXT_TOO_LONG) with the service's own text when the prompt alone is too long.
    Source: wire reference 5.3, "Range of input length should be [1, xxx]".
    """
    limit = card.input_limit_tokens
    if input_tokens > limit:
        raise ApiError(ErrorKind.CONTEXT_TOO_LONG, f"Range of input length should be [1, {limit}]", param="messages")
    return min(request.max_output_tokens or card.output_limit_tokens, card.context_tokens - input_tokens)


def _check_writes(request: TextRequest, card: ModelCard) -> None:
    if not card.is_text:
        raise ApiError(ErrorKind.WRONG_ENDPOINT, param=request.model)


def _check_endpoint(request: Request, wanted: Capability, card: ModelCard) -> None:
    if wanted not in card.capabilities:
        raise ApiError(ErrorKind.WRONG_ENDPOINT, param=request.model)


def _check_capabilities(request: ChatRequest, card: ModelCard) -> None:
    if request.thinking.is_enabled and not request.thinking.is_optional and Capability.THINKING not in card.capabilities:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"The model {request.model} does not support enable_thinking.", param="enable_thinking")
    if request.tools and Capability.TOOLS not in card.capabilities:
        raise ApiError(ErrorKind.INVALID_REQUEST, "The tool call is not supported.", param="tools")
    if request.top_logprobs is not None and Capability.LOGPROBS not in card.capabilities:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"The model {request.model} does not support logprobs.", param="logprobs")
    if Capability.VISION not in card.capabilities and request.has_pictures:
        # The service's text comes first (wire reference 5.3); clients look for it.
        text = f"{_TEXT_ONLY} The model {request.model} reads text only; pictures need a model with vision (qwen-vl-plus, qwen-vl-max)."
        raise ApiError(ErrorKind.INVALID_REQUEST, text, param="messages")


def _sampling(asked: Sampling, card: ModelCard, compat: Compat) -> Sampling:
    own = card.sampling
    if compat is Compat.DOCUMENTED:
        # The document's table promises 1.0 and 1.0; everything it is silent about stays the model's own.
        own = msgspec.structs.replace(own, temperature=1.0, top_p=1.0)
    return Sampling(
        temperature=_first(asked.temperature, own.temperature, _NEUTRAL.temperature),
        top_p=_first(asked.top_p, own.top_p, _NEUTRAL.top_p),
        top_k=_first(asked.top_k, own.top_k, _NEUTRAL.top_k),
        presence_penalty=_first(asked.presence_penalty, own.presence_penalty, _NEUTRAL.presence_penalty),
        frequency_penalty=_first(asked.frequency_penalty, own.frequency_penalty, _NEUTRAL.frequency_penalty),
        repetition_penalty=_first(asked.repetition_penalty, own.repetition_penalty, _NEUTRAL.repetition_penalty),
        seed=asked.seed,
    )


def _first(asked: Number | None, own: Number | None, neutral: Number | None) -> Number | None:
    if asked is not None:
        return asked
    return own if own is not None else neutral


def _output_limit(request: TextRequest, card: ModelCard) -> int:
    limit = card.output_limit_tokens
    if request.max_output_tokens is None:
        return limit
    if not 1 <= request.max_output_tokens <= limit:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"Range of max_tokens should be [1, {limit}]", param="max_tokens")
    return request.max_output_tokens


def _defaults(request: TextRequest, sampling: Sampling, limit: int) -> dict[str, float | bool]:
    """What was put in, beside what was asked."""
    asked = request.sampling
    filled: dict[str, float | bool] = {}
    # By name, not in a loop: every call comes by, and few ask.
    if asked.temperature is None and sampling.temperature is not None:
        filled["temperature"] = sampling.temperature
    if asked.top_p is None and sampling.top_p is not None:
        filled["top_p"] = sampling.top_p
    if asked.top_k is None and sampling.top_k is not None:
        filled["top_k"] = sampling.top_k
    if asked.presence_penalty is None and sampling.presence_penalty is not None:
        filled["presence_penalty"] = sampling.presence_penalty
    if asked.frequency_penalty is None and sampling.frequency_penalty is not None:
        filled["frequency_penalty"] = sampling.frequency_penalty
    if asked.repetition_penalty is None and sampling.repetition_penalty is not None:
        filled["repetition_penalty"] = sampling.repetition_penalty
    if request.max_output_tokens is None:
        filled["max_output_tokens"] = limit
    return filled


def _extensions(request: TextRequest, caller: Caller) -> dict[str, bytes]:
    if caller.seeds is SeedPolicy.PASS:
        return {**request.extensions, "qwenbox.seeds": b"pass"}
    return request.extensions
