"""This is where a request becomes a job for llama.cpp: its prompt as token ids, its limits, its sampling."""

from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from qwenbox.engines import gguf as gguf_file
from qwenbox.engines.constraints.answer import constraint
from qwenbox.engines.gguf import Gguf, Projector
from qwenbox.engines.llamacpp import pictures, wire
from qwenbox.engines.llamacpp.config import LlamaCppConfig, LlamaParts
from qwenbox.engines.llamacpp.pictures import Prompt, Sight
from qwenbox.engines.llamacpp.voice import Manner, Voice
from qwenbox.engines.prompt import PromptTemplate, render_ids
from qwenbox.engines.thinking import CLOSING, CUT, OPENING, Thinking
from qwenbox.engines.tokenizer import Tokenizer, Vocabularies
from qwenbox.engines.tool_calls import hearing
from qwenbox.terms.caller import SeedPolicy
from qwenbox.terms.chat import AnyText, ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError, ErrorKind

# Read only here: b"pass" lets a seeded call run on the shared child, without the promise.
SEEDS_EXTENSION: Final = "qwenbox.seeds"
_FILL: Final = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
# Below this many characters tokenising is quicker than handing it to a thread.
_THREAD_CHARACTERS: Final = 10_000
# Enough of the prompt's end to see whether it closes or opens thoughts.
_TAIL_TOKENS: Final = 8


class Loading(msgspec.Struct, frozen=True, kw_only=True):
    """The files a child loads; see config.Loadable."""

    path: str
    size_bytes: int
    kv_bytes_per_token: int
    projector: str = ""
    projector_bytes: int = 0


class Weights(msgspec.Struct, frozen=True):
    """What is read from the weights' file once. sight: None where they see no pictures."""

    gguf: Gguf
    tokenizer: Tokenizer
    template: PromptTemplate
    sight: Sight | None = None

    @property
    def loading(self) -> Loading:
        return loading(self.gguf, self.sight.projector if self.sight else None)

    @property
    def context_tokens(self) -> int:
        return self.gguf.context_tokens


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One call as the child will be asked.

    prompt: what `completion` is to be asked with, counted. completion: the body of choice 0; n choices are asked for at once or one by
    one. is_exact: the seed is a promise, so the
    call needs the lane that computes nothing else. thinks: the answer may begin with thoughts; is_thought_open: the prompt
    already holds their opening tag. answer_grammar: the constraint of what follows the thoughts.
    """

    weights: Weights
    request: ChatRequest | CompletionRequest
    prompt: Prompt
    completion: wire.Completion
    is_exact: bool
    thinks: bool = False
    is_thought_open: bool = False
    answer_grammar: str = ""

    @property
    def input_tokens(self) -> int:
        return self.prompt.input_tokens

    @property
    def picture_sizes(self) -> tuple[tuple[int, int], ...]:
        """At which the pictures are seen, where the call wants to know."""
        wants = isinstance(self.request, ChatRequest) and self.request.wants_picture_sizes
        return tuple((size.width, size.height) for size in self.prompt.sizes) if wants else ()

    @property
    def n(self) -> int:
        return self.request.n

    @property
    def seed(self) -> int | None:
        return self.request.sampling.seed

    @property
    def thinking_budget(self) -> int | None:
        """Tokens of thought after which it is cut over to answering; None without a limit or without thoughts."""
        return self.request.thinking.budget_tokens if self.thinks and isinstance(self.request, ChatRequest) else None

    def voice(self, index: int) -> Voice:
        """The machine that hears choice `index`."""
        request = self.request
        is_chat = isinstance(request, ChatRequest)
        manner = Manner(
            tokenizer=self.weights.tokenizer,
            stop_tokens=request.stop_tokens if is_chat else (),
            top_logprobs=request.top_logprobs,
        )
        thinking = Thinking(is_open=self.is_thought_open, budget_tokens=self.thinking_budget) if self.thinks else None
        return Voice(index, manner, thinking, hearing(request) if is_chat else None)

    def after_thoughts(self, index: int, voice: Voice) -> wire.Completion:
        """The body with which choice `index` goes on to its answer once its thoughts were cut off."""
        tokenizer, begun = self.weights.tokenizer, self.completion.prompt
        prompt: wire.Shown | list[int]
        if isinstance(begun, wire.Shown):
            *earlier, last = begun.texts
            prompt = wire.Shown((*earlier, last + pictures.plain(tokenizer, voice.said) + CUT), begun.pictures)
        else:
            prompt = [*begun, *tokenizer.encode_plain(voice.said), *tokenizer.encode(CUT)]
        left = max(self.completion.n_predict - voice.output_tokens, 1)
        return msgspec.structs.replace(
            self.completion, prompt=prompt, n_predict=left, seed=wire.seed(self.seed, index), grammar=self.answer_grammar
        )


def loading(gguf: Gguf, projector: Projector | None = None) -> Loading:
    """What a child is to load."""
    return Loading(
        path=str(gguf.path),
        size_bytes=gguf.size_bytes,
        kv_bytes_per_token=gguf.kv_bytes_per_token,
        projector=str(projector.path) if projector else "",
        projector_bytes=projector.size_bytes if projector else 0,
    )


async def read_weights(parts: LlamaParts, most_pixels: int) -> Weights:
    """Find the files and read all of them that is not weights. Raises ApiError when one is not here or cannot be used.

    most_pixels: of a picture, see LlamaCppConfig.picture_pixels.
    """
    path = await parts.locate()
    weights = await anyio.to_thread.run_sync(_read_weights, path, parts.vocabularies)
    if parts.locate_projector is None:
        return weights
    projector = await anyio.to_thread.run_sync(gguf_file.read_projector, await parts.locate_projector())
    return msgspec.structs.replace(weights, sight=pictures.sight(projector, most_pixels))


async def read_prompt(weights: Weights, request: ChatRequest | CompletionRequest) -> Prompt:
    """The prompt, counted. Raises ApiError(INVALID_REQUEST) for messages the template refuses, and like `pictures.read`."""
    if _characters(request) < _THREAD_CHARACTERS:
        return _prompt(weights, request)
    return await anyio.to_thread.run_sync(_prompt, weights, request)


async def with_pictures(asked: Job) -> Job:
    """The job with its pictures painted; the same where it has none. Raises ApiError like `pictures.painted`."""
    prompt = asked.prompt
    if not prompt.pictures:
        return asked
    painted = await anyio.to_thread.run_sync(pictures.painted, prompt.pictures, prompt.sizes)
    completion = msgspec.structs.replace(asked.completion, prompt=wire.Shown(prompt.texts, painted))
    return msgspec.structs.replace(asked, completion=completion)


def job(weights: Weights, prompt: Prompt, request: ChatRequest | CompletionRequest, config: LlamaCppConfig) -> Job:
    """Raises ApiError: CONTEXT_TOO_LONG before anything is sent, INVALID_REQUEST for a promise that cannot be kept."""
    room_tokens = min(config.context_tokens, weights.context_tokens)
    if not 1 <= prompt.input_tokens < room_tokens:
        raise ApiError(ErrorKind.CONTEXT_TOO_LONG, f"Range of input length should be [1, {room_tokens - 1}]")
    wish = request.sampling.seed
    is_exact = wish is not None and config.seeds is SeedPolicy.EXACT and request.extensions.get(SEEDS_EXTENSION) != b"pass"
    end = weights.tokenizer.text(prompt.ids[-_TAIL_TOKENS:]).rstrip()
    thinks = _thinks(weights, request, end)
    completion = msgspec.structs.replace(
        wire.sampling(request.sampling, config.penalty_window_tokens),
        prompt=prompt.body,
        n_predict=min(request.max_output_tokens or room_tokens, room_tokens - prompt.input_tokens),
        cache_prompt=not is_exact,
        stop=request.stop,
        seed=wire.seed(wish),
        n_probs=0 if request.top_logprobs is None else max(request.top_logprobs, 1),
        grammar=_grammar(request, is_thinking=thinks),
    )
    return Job(
        weights=weights,
        request=request,
        prompt=prompt,
        completion=completion,
        is_exact=is_exact,
        thinks=thinks,
        is_thought_open=thinks and end.endswith(OPENING),
        answer_grammar=_grammar(request, is_thinking=False) if thinks else "",
    )


def _thinks(weights: Weights, request: ChatRequest | CompletionRequest, end: str) -> bool:
    """Whether thoughts may come first. A template says "no thoughts" by closing them in the prompt, a partial answer by having begun."""
    if not isinstance(request, ChatRequest) or not weights.template.supports_thinking:
        return False
    if request.thinking.is_enabled is False or end.endswith(CLOSING):
        return False
    return not (request.messages and request.messages[-1].is_partial)


def _grammar(request: ChatRequest | CompletionRequest, *, is_thinking: bool) -> str:
    if not isinstance(request, ChatRequest):
        return ""
    if request.messages[-1].is_partial and not isinstance(request.response_format, AnyText):
        text = "A partial message cannot be continued into a response_format; leave one of them out."
        raise ApiError(ErrorKind.INVALID_REQUEST, text, param="response_format")
    return constraint(request, is_thinking=is_thinking) or ""


def _read_weights(path: Path, vocabularies: Vocabularies) -> Weights:
    gguf = gguf_file.read(path)
    tokenizer = vocabularies.of(gguf)
    if not gguf.chat_template:
        raise ApiError(ErrorKind.ENGINE_FAILED, f"{path.name} brings no chat template; use an instruct model.")
    names = {"bos": gguf.bos_id, "eos": gguf.eos_id}
    bos, eos = (gguf.tokens[number] if number is not None else "" for number in names.values())
    return Weights(gguf, tokenizer, PromptTemplate(gguf.chat_template, bos=bos, eos=eos))


def _prompt(weights: Weights, request: ChatRequest | CompletionRequest) -> Prompt:
    if isinstance(request, ChatRequest):
        if request.has_pictures:
            return pictures.read(request, weights.template, weights.tokenizer, weights.sight)
        return Prompt(ids=render_ids(weights.template, weights.tokenizer, request))
    if request.suffix is None:
        return Prompt(ids=_raw_ids(weights, request.prompt))
    return Prompt(ids=_fill_ids(weights.tokenizer, request.prompt, request.suffix))


def _raw_ids(weights: Weights, prompt: str) -> list[int]:
    """A raw prompt means what it says: control tokens in it count, as on the service (its fill-in-the-middle examples)."""
    gguf = weights.gguf
    bos = [gguf.bos_id] if gguf.bos_id is not None and (gguf.is_bos_added or not prompt) else []
    return bos + weights.tokenizer.encode(prompt)


def _fill_ids(tokenizer: Tokenizer, prefix: str, suffix: str) -> list[int]:
    ids = [tokenizer.control.get(name) for name in _FILL]
    before, after, middle = ids
    if before is None or after is None or middle is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, "These weights cannot fill a hole; leave out suffix.", param="suffix")
    return [before, *tokenizer.encode_plain(prefix), after, *tokenizer.encode_plain(suffix), middle]


def _characters(request: ChatRequest | CompletionRequest) -> int:
    if isinstance(request, CompletionRequest):
        return len(request.prompt) + len(request.suffix or "")
    return sum(len(message.text) for message in request.messages) + sum(len(tool.parameters) for tool in request.tools)
