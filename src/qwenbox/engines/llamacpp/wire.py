"""This is where llama.cpp's native completion is written and heard: `POST /completion`, measured on build 2026.10.11549.

Its chat endpoint is not used: there tool_choice is ignored, a partial turn is closed, and errors speak C++.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from qwenbox.terms.chat import Sampling
from qwenbox.terms.errors import ApiError, ErrorKind

RANDOM_SEED: Final = 0xFFFF_FFFF  # llama.cpp draws a seed of its own for this value
_GREEDY: Final = ("penalties", "top_k")
_DRAWN: Final = ("penalties", "temperature", "top_k", "top_p")
_DATA: Final = b"data: "


class Shown(msgspec.Struct, frozen=True):
    """A prompt with pictures between its texts, of which there is one more. pictures: files in base64.

    In the texts the names of control tokens are those tokens.
    """

    texts: tuple[str, ...]
    pictures: tuple[str, ...] = ()


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The request's body. Everything that samples is said, because the server's own defaults are not Qwen's.

    Samplers run in the order that vLLM and transformers use: penalties, temperature, top_k, top_p.
    """

    prompt: Sequence[int] | Shown
    n_predict: int
    n_cmpl: int = 1
    cache_prompt: bool = True
    stop: Sequence[str] = ()
    grammar: str = ""
    n_probs: int = 0
    seed: int = RANDOM_SEED
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repeat_penalty: float = 1.0
    repeat_last_n: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    samplers: Sequence[str] = _DRAWN
    min_p: float = 0.0
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    dynatemp_range: float = 0.0
    xtc_probability: float = 0.0
    dry_multiplier: float = 0.0
    mirostat: int = 0
    adaptive_target: float = -1.0
    n_keep: int = 0
    ignore_eos: bool = False
    post_sampling_probs: bool = False
    timings_per_token: bool = False
    stream: bool = True
    return_tokens: bool = True
    return_progress: bool = True  # without it a hang-up is noticed only at the first token


class Progress(msgspec.Struct, frozen=True):
    """How much of the prompt is read."""

    total: int
    cache: int
    processed: int


class Probability(msgspec.Struct, frozen=True):
    """Natural-log probability of one token, before sampling changed it."""

    id: int
    logprob: float
    top_logprobs: tuple["Probability", ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """An error object of the server; its message is for the log, not for callers."""

    message: str = ""
    type: str = ""
    code: int = 500


class Chunk(msgspec.Struct, frozen=True):
    """One SSE frame. index: which of the n_cmpl sequences. tokens: only the last token of those that `content` took.

    tokens_predicted: tokens so far. stop_type, in the last chunk: "eos", "word" or "limit"; stopping_word: which.
    """

    index: int = 0
    content: str = ""
    tokens: tuple[int, ...] = ()
    stop: bool = False
    tokens_predicted: int = 0
    prompt_progress: Progress | None = None
    completion_probabilities: tuple[Probability, ...] = ()
    stop_type: str = ""
    stopping_word: str = ""
    error: Failure | None = None


class _Refused(msgspec.Struct, frozen=True):
    error: Failure = Failure()


_encoder: Final = msgspec.json.Encoder()
_chunk_decoder: Final = msgspec.json.Decoder(Chunk)
_refused_decoder: Final = msgspec.json.Decoder(_Refused)


def encode(completion: Completion, marker: str = "") -> bytes:
    """The body's bytes. marker: what stands for a picture in this child's prompts; a caller cannot know it."""
    if not isinstance(completion.prompt, Shown):
        return _encoder.encode(completion)
    fields = msgspec.structs.asdict(completion)
    shown = {"prompt_string": marker.join(completion.prompt.texts), "multimodal_data": completion.prompt.pictures}
    return _encoder.encode({**fields, "prompt": shown})


def sampling(wishes: Sampling, window_tokens: int) -> Completion:
    """The sampling part of a body; prompt and limits are put in by `msgspec.structs.replace`.

    window_tokens: how many of the last tokens, prompt included, the penalties look at (docs/engines.md).
    """
    temperature = 1.0 if wishes.temperature is None else wishes.temperature
    is_greedy = temperature <= 0.0
    return Completion(
        prompt=(),
        n_predict=0,
        temperature=0.0 if is_greedy else temperature,
        top_k=1 if is_greedy else wishes.top_k or 0,
        top_p=1.0 if wishes.top_p is None else wishes.top_p,
        repeat_penalty=wishes.repetition_penalty or 1.0,
        repeat_last_n=window_tokens,
        presence_penalty=wishes.presence_penalty or 0.0,
        frequency_penalty=wishes.frequency_penalty or 0.0,
        samplers=_GREEDY if is_greedy else _DRAWN,
    )


def seed(wish: int | None, index: int = 0) -> int:
    """The server's 32-bit seed for choice `index`; never the value that means "draw one"."""
    return RANDOM_SEED if wish is None else (wish + index) % RANDOM_SEED


async def chunks(body: AsyncIterator[bytes]) -> AsyncIterator[Chunk]:
    """The frames of an answer, however its bytes are cut. Raises ApiError(ENGINE_FAILED) for an error in the stream."""
    rest = b""
    async for piece in body:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(_DATA):
                yield _heard(line[len(_DATA) :])
            elif line.startswith(b"error: "):
                raise refusal(500, line[len(b"error: ") :])


def refusal(status: int, body: bytes) -> ApiError:
    """What a caller is told when the server refused: its own words never pass."""
    try:
        failure = _refused_decoder.decode(body).error
    except msgspec.DecodeError:
        failure = Failure(code=status)
    return _told(failure)


def _heard(frame: bytes) -> Chunk:
    try:
        chunk = _chunk_decoder.decode(frame)
    except msgspec.DecodeError as error:
        raise ApiError(ErrorKind.ENGINE_FAILED, "The engine answered in a form that is not known here.") from error
    if chunk.error is not None:
        raise _told(chunk.error)
    return chunk


def _told(failure: Failure) -> ApiError:
    if failure.type == "exceed_context_size_error":
        return ApiError(ErrorKind.CONTEXT_TOO_LONG)
    if failure.type == "unavailable_error":
        return ApiError(ErrorKind.OVERLOADED, "The engine is loading its weights; try again soon.", retry_after_s=2.0)
    if "grammar" in failure.message:
        return ApiError(ErrorKind.INVALID_REQUEST, "The schema asks for a constraint that the engine cannot keep.")
    if "KV cache" in failure.message or "Context size" in failure.message:
        return ApiError(ErrorKind.OVERLOADED, "The engine ran out of room for this answer; try again.", retry_after_s=1.0)
    return ApiError(ErrorKind.ENGINE_FAILED, "The engine could not answer this call.")
