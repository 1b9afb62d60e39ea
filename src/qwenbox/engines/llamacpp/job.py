"""This is where a request becomes a job for llama.cpp: its prompt as token ids, its limits, its sampling."""

from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from qwenbox.engines import gguf as gguf_file
from qwenbox.engines.gguf import Gguf
from qwenbox.engines.llamacpp import wire
from qwenbox.engines.llamacpp.config import LlamaCppConfig, LlamaParts
from qwenbox.engines.prompt import PromptTemplate, render_ids
from qwenbox.engines.tokenizer import Tokenizer, Vocabularies
from qwenbox.terms.caller import SeedPolicy
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError, ErrorKind

# Read only here: b"pass" lets a seeded call run on the shared child, without the promise.
SEEDS_EXTENSION: Final = "qwenbox.seeds"
_FILL: Final = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
# Below this many characters tokenising is quicker than handing it to a thread.
_THREAD_CHARACTERS: Final = 10_000


class Weights(msgspec.Struct, frozen=True):
    """What is read from the weights' file once."""

    gguf: Gguf
    tokenizer: Tokenizer
    template: PromptTemplate

    @property
    def context_tokens(self) -> int:
        return self.gguf.context_tokens


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One call as the child will be asked.

    completion: the body of choice 0; n choices are asked for at once or one by one. is_exact: the seed is a promise, so the
    call needs the lane that computes nothing else.
    """

    weights: Weights
    completion: wire.Completion
    n: int
    seed: int | None
    is_exact: bool
    stop_tokens: tuple[tuple[int, ...], ...] = ()
    top_logprobs: int | None = None

    @property
    def input_tokens(self) -> int:
        return len(self.completion.prompt)


async def read_weights(parts: LlamaParts) -> Weights:
    """Find the file and read all of it that is not weights. Raises ApiError when it is not here or cannot be used."""
    path = await parts.locate()
    return await anyio.to_thread.run_sync(_read_weights, path, parts.vocabularies)


async def prompt_ids(weights: Weights, request: ChatRequest | CompletionRequest) -> list[int]:
    """The prompt's token ids. Raises ApiError(INVALID_REQUEST) for messages the template refuses."""
    if _characters(request) < _THREAD_CHARACTERS:
        return _prompt_ids(weights, request)
    return await anyio.to_thread.run_sync(_prompt_ids, weights, request)


def job(weights: Weights, ids: list[int], request: ChatRequest | CompletionRequest, config: LlamaCppConfig) -> Job:
    """Raises ApiError: CONTEXT_TOO_LONG before anything is sent, INVALID_REQUEST."""
    room_tokens = min(config.context_tokens, weights.context_tokens)
    if not 1 <= len(ids) < room_tokens:
        raise ApiError(ErrorKind.CONTEXT_TOO_LONG, f"Range of input length should be [1, {room_tokens - 1}]")
    wish = request.sampling.seed
    is_exact = wish is not None and config.seeds is SeedPolicy.EXACT and request.extensions.get(SEEDS_EXTENSION) != b"pass"
    completion = msgspec.structs.replace(
        wire.sampling(request.sampling, config.penalty_window_tokens),
        prompt=ids,
        n_predict=min(request.max_output_tokens or room_tokens, room_tokens - len(ids)),
        cache_prompt=not is_exact,
        stop=request.stop,
        seed=wire.seed(wish),
        n_probs=0 if request.top_logprobs is None else max(request.top_logprobs, 1),
    )
    return Job(
        weights=weights,
        completion=completion,
        n=request.n,
        seed=wish,
        is_exact=is_exact,
        stop_tokens=request.stop_tokens if isinstance(request, ChatRequest) else (),
        top_logprobs=request.top_logprobs,
    )


def _read_weights(path: Path, vocabularies: Vocabularies) -> Weights:
    gguf = gguf_file.read(path)
    tokenizer = vocabularies.of(gguf)
    if not gguf.chat_template:
        raise ApiError(ErrorKind.ENGINE_FAILED, f"{path.name} brings no chat template; use an instruct model.")
    names = {"bos": gguf.bos_id, "eos": gguf.eos_id}
    bos, eos = (gguf.tokens[number] if number is not None else "" for number in names.values())
    return Weights(gguf, tokenizer, PromptTemplate(gguf.chat_template, bos=bos, eos=eos))


def _prompt_ids(weights: Weights, request: ChatRequest | CompletionRequest) -> list[int]:
    if isinstance(request, ChatRequest):
        return render_ids(weights.template, weights.tokenizer, request)
    if request.suffix is None:
        return _raw_ids(weights, request.prompt)
    return _fill_ids(weights.tokenizer, request.prompt, request.suffix)


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
