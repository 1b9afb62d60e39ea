"""This is where tokens are counted that no engine counted: by a vocabulary where there is one, else they are estimated."""

from enum import StrEnum

import anyio
import msgspec

from qwenbox.gateway.catalog import Model, Request, TextRequest
from qwenbox.gateway.estimate import most_around, prompt_marks, prompt_texts, text_tokens, texts_of, turns
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.engine import TextCounter
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatDelta, ReasoningDelta, ToolCallDelta
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.model import ModelCard
from qwenbox.terms.rerank import RerankRequest
from qwenbox.terms.usage import Usage

# The longest a call waits for a count. The first one reads the vocabulary, which takes about a second.
_LONGEST_S = 5.0


class CountedBy(StrEnum):
    VOCABULARY = "vocabulary"
    ESTIMATE = "estimate"


async def most_input(model: Model, request: Request, most_tokens: int) -> int:
    """`most_tokens`, or less where every deployment counts as its server does, so that a count is a bound.

    most_tokens: no prompt of the request can have more (estimate.most_tokens).
    """
    if not isinstance(request, ChatRequest | CompletionRequest):
        return most_tokens
    most = 0
    for deployment in model.deployments:
        counter = deployment.text_counter
        if deployment.counter is not None or counter is None or not counter.has_own_vocabulary:
            return most_tokens
        counts: list[int] | None = None
        with anyio.move_on_after(_LONGEST_S):
            counts = await counter.count_texts(turns(request))
        if counts is None:
            return most_tokens
        most = max(most, most_around(request) + sum(counts))
    return min(most, most_tokens)


async def about_texts(model: Model, request: EmbeddingRequest | RerankRequest | ImageRequest) -> int:
    """Input tokens of a request without a template, by the first vocabulary there is; else no request of these texts can have more.

    Raises ApiError(CONTEXT_TOO_LONG) for a text that the engine itself counts as longer than the card says, or as nothing.
    """
    texts = texts_of(request)
    for deployment in model.deployments:
        counter = deployment.text_counter
        if counter is not None:
            counts: list[int] | None = None
            with anyio.move_on_after(_LONGEST_S):
                counts = await counter.count_texts(texts)
            if counts is not None:
                if counter.has_own_vocabulary and not isinstance(request, ImageRequest):
                    _fit_texts(counts, model.entry.card, is_whole=isinstance(request, EmbeddingRequest))
                return sum(counts)
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def _fit_texts(counts: list[int], card: ModelCard, *, is_whole: bool) -> None:
    """is_whole: each text must say something; a document may be empty."""
    facts = card.vectors
    limit = facts.most_text_tokens or card.context_tokens
    if max(counts) > limit or (is_whole and min(counts) < 1):
        raise ApiError(ErrorKind.CONTEXT_TOO_LONG, f"Range of input length should be [1, {limit}]", param="input")
    if facts.most_call_tokens is not None and sum(counts) > facts.most_call_tokens:
        raise ApiError(ErrorKind.CONTEXT_TOO_LONG, f"Range of input length should be [1, {facts.most_call_tokens}]", param="input")


async def about_input(model: Model, request: TextRequest) -> int:
    """Input tokens by the first deployment that can count them; else about as many, by the first vocabulary there is, else estimated.

    Raises what the engine raises that counts.
    """
    texts = prompt_texts(request)
    for deployment in model.deployments:
        if deployment.counter is not None:
            return await deployment.counter.count(request)
        counts: list[int] | None = None
        if deployment.text_counter is not None:
            with anyio.move_on_after(_LONGEST_S):
                counts = await deployment.text_counter.count_texts(texts, has_controls=_is_raw(request))
        if counts is not None:
            return sum(counts) + prompt_marks(request)
    return sum(map(text_tokens, texts)) + prompt_marks(request)


class Produced:
    """What an answer said, kept to be counted should nobody tell its tokens: deltas of an engine that cannot count tell little of them."""

    __slots__ = ("_counter", "_pieces")

    def __init__(self, counter: TextCounter | None) -> None:
        self._counter = counter
        # By kind, choice and call: what was said in turns is not counted as one text.
        self._pieces: dict[tuple[type[ChatDelta], int, int], list[str]] = {}

    def note(self, event: ChatDelta) -> None:
        is_call = isinstance(event, ToolCallDelta)
        key = (type(event), event.index, event.call if is_call else 0)
        self._pieces.setdefault(key, []).append(event.name + event.arguments if is_call else event.text)

    async def usage(self, request: Request, told: Usage) -> tuple[Usage, CountedBy]:
        """told: what deltas say; input_tokens 0 where the engine has not said them. Not cancelled: a call that is cut is counted, too."""
        texts = ["".join(pieces) for pieces in self._pieces.values()]
        prompt = [] if told.input_tokens else _prompt(request)
        counts: list[int] | None = None
        if self._counter is not None:
            with anyio.move_on_after(_LONGEST_S, shield=True):
                counts = await _counts(self._counter, request, prompt, texts)
        by = CountedBy.ESTIMATE if counts is None else CountedBy.VOCABULARY
        if counts is None:
            counts = [text_tokens(text) for text in (*prompt, *texts)]
        output_tokens = sum(counts[len(prompt) :])
        reasoning_tokens = sum(
            count for (kind, *_), count in zip(self._pieces, counts[len(prompt) :], strict=True) if kind is ReasoningDelta
        )
        # A delta may hold any number of tokens, but an estimate must not fall below what a stream has shown.
        if by is CountedBy.ESTIMATE:
            output_tokens = max(output_tokens, told.output_tokens)
        usage = msgspec.structs.replace(
            told,
            input_tokens=told.input_tokens or sum(counts[: len(prompt)]) + _marks(request),
            output_tokens=output_tokens,
            reasoning_tokens=reasoning_tokens or None,
        )
        return usage, by


async def _counts(counter: TextCounter, request: Request, prompt: list[str], texts: list[str]) -> list[int] | None:
    of_prompt = await counter.count_texts(prompt, has_controls=_is_raw(request)) if prompt else []
    of_texts = await counter.count_texts(texts)
    return None if of_prompt is None or of_texts is None else of_prompt + of_texts


def _prompt(request: Request) -> list[str]:
    return prompt_texts(request) if isinstance(request, ChatRequest | CompletionRequest) else texts_of(request)


def _marks(request: Request) -> int:
    return prompt_marks(request) if isinstance(request, ChatRequest | CompletionRequest) else 0


def _is_raw(request: Request) -> bool:
    return isinstance(request, CompletionRequest) and request.suffix is None
