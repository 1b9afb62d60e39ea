"""This is where native `parameters` become sampling, limits, stops and thinking, each within its range (wire reference 2.2, 5.3)."""

from collections.abc import Callable, Mapping

from msgspec import UNSET

from qwenbox.dialects.dashscope.body import INVALID, WRONG_FORMAT, WRONG_STOP, is_json_object
from qwenbox.dialects.dashscope.errors import LONGEST_ECHO
from qwenbox.dialects.dashscope.schema import Format, Parameters
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import AnyText, JsonObject, JsonSchema, ResponseFormat, Sampling, Thinking
from qwenbox.terms.errors import ApiError, ErrorKind

# The wire's integers end here. The range of max_tokens is checked where the model's maximum is known, so that the text can name it.
MOST_TOKENS = 2**31 - 1
MOST_SEED = 2**63 - 1
MOST_TOP_K = 100

THINKS_AND_EFFORT = "reasoning_effort and thinking_budget must not be set together."
WRONG_BUDGET = f"The thinking_budget parameter must be a positive integer and not greater than {MOST_TOKENS}"

_Check = tuple[str, Callable[[float], bool], str]
_EVERYWHERE: tuple[_Check, ...] = (
    ("top_k", lambda value: value >= 0, "Parameter top_k be greater than or equal to 0"),
    ("seed", lambda value: 0 <= value <= MOST_SEED, f"Range of seed should be [0, {MOST_SEED}]"),
    ("repetition_penalty", lambda value: value > 0, "Repetition_penalty should be greater than 0.0"),
    ("presence_penalty", lambda value: -2 <= value <= 2, "Presence_penalty should be in [-2.0, 2.0]"),
    ("frequency_penalty", lambda value: -2 <= value <= 2, "Frequency_penalty should be in [-2.0, 2.0]"),
    ("n", lambda value: 1 <= value <= 4, "Range of n should be [1, 4]"),
    ("top_logprobs", lambda value: 0 <= value <= 5, "Range of top_logprobs should be [0, 5]"),
    ("thinking_budget", lambda value: 1 <= value <= MOST_TOKENS, WRONG_BUDGET),
)
_CHECKS: Mapping[Compat, tuple[_Check, ...]] = {
    Compat.DOCUMENTED: (
        ("temperature", lambda value: 0 <= value <= 2, "Temperature should be in [0.0, 2.0]"),
        ("top_p", lambda value: 0 <= value <= 1, "Range of top_p should be [0.0, 1.0]"),
        *_EVERYWHERE,
    ),
    Compat.STRICT: (
        ("temperature", lambda value: 0 <= value < 2, "Temperature should be in [0.0, 2.0)"),
        ("top_p", lambda value: 0 < value <= 1, "Range of top_p should be (0.0, 1.0]"),
        *_EVERYWHERE,
    ),
}
# Known parameters that no engine of ours can honour, and that say something when they are none of _MEANINGLESS.
_REFUSED = (
    "enable_search",
    "enable_code_interpreter",
    "preserve_thinking",
    "plugins",
    "logit_bias",
    "max_input_tokens",
    "translation_options",
    "skill",
    "ocr_options",
    "asr_options",
    "audio",
)
_MEANINGLESS = frozenset({b"", b"null", b"false", b"[]", b"{}", b'""'})
# Reasoning tokens by effort (wire reference 2.2); the highest two mean as many as the model has.
_EFFORTS: Mapping[str, int | None] = {"minimal": 4096, "low": 4096, "medium": 16384, "high": None, "xhigh": None, "max": None}


def check(given: Parameters, compat: Compat) -> None:
    """Every number in its range, nothing asked for that would be ignored. Raises ApiError(INVALID_REQUEST)."""
    for name, is_fine, text in _CHECKS[compat]:
        value = getattr(given, name)
        if value is not None and value is not UNSET and not is_fine(value):
            raise wrong(text, name)
    for name in _REFUSED:
        if bytes(getattr(given, name)) not in _MEANINGLESS:
            raise wrong(f"This model does not support {name}.", name)


def sampling(given: Parameters) -> Sampling:
    """How tokens are drawn. top_k null, or above 100, keeps all."""
    top_k = given.top_k
    if top_k is UNSET:
        top_k = None
    elif top_k is None or top_k > MOST_TOP_K:
        top_k = 0
    return Sampling(
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=top_k,
        presence_penalty=given.presence_penalty,
        frequency_penalty=given.frequency_penalty,
        repetition_penalty=given.repetition_penalty,
        seed=given.seed,
    )


def max_output_tokens(given: Parameters) -> int | None:
    """max_tokens and max_completion_tokens, in no range yet: who sends both means both."""
    limits = [limit for limit in (given.max_tokens, given.max_completion_tokens) if limit is not None]
    return min(limits, default=None)


def stops(given: Parameters) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Stop texts and stop token sequences; at most one is non-empty. A bare token id is a sequence of one."""
    stop = given.stop
    if stop is None:
        return (), ()
    listed = [stop] if isinstance(stop, str) else stop
    texts = [entry for entry in listed if isinstance(entry, str)]
    sequences = [(entry,) if isinstance(entry, int) else tuple(entry) for entry in listed if not isinstance(entry, str)]
    is_mixed = len({type(entry) for entry in listed}) > 1
    if is_mixed or any(not sequence or not all(0 <= token <= MOST_TOKENS for token in sequence) for sequence in sequences):
        raise wrong(WRONG_STOP, "stop")
    if "" in texts:
        raise wrong('The "stop" parameter must not contain an empty string.', "stop")
    return tuple(texts), tuple(sequences)


def thinking(given: Parameters) -> Thinking:
    """enable_thinking, thinking_budget, and reasoning_effort as the budget it stands for."""
    effort = given.reasoning_effort
    if effort is None:
        if given.enable_thinking is None and given.thinking_budget is None:
            return _UNSAID
        return Thinking(is_enabled=given.enable_thinking, budget_tokens=given.thinking_budget)
    if given.thinking_budget is not None:
        raise wrong(THINKS_AND_EFFORT, "reasoning_effort")
    if effort == "none":
        return Thinking(is_enabled=False)
    if effort not in _EFFORTS:
        raise wrong(f"reasoning_effort is one of the strings that should be {_quoted(['none', *_EFFORTS])}", "reasoning_effort")
    return Thinking(is_enabled=given.enable_thinking, budget_tokens=_EFFORTS[effort])


def response_format(given: Format | None) -> ResponseFormat:
    """What is promised about the answer's form. The schema stays the caller's bytes; it is judged where it is compiled."""
    if given is None or given.type == "text":
        return _ANY_TEXT
    if given.type == "json_object":
        return JsonObject()
    if given.type != "json_schema":
        raise wrong(WRONG_FORMAT.format((given.type or "None")[:LONGEST_ECHO]), "response_format")
    named = given.json_schema
    if named is None or not is_json_object(named.schema):
        raise wrong(INVALID.format("response_format.json_schema.schema"), "response_format.json_schema.schema")
    return JsonSchema(name=named.name or "", schema=bytes(named.schema))


def wrong(text: str, name: str) -> ApiError:
    """The error about this parameter."""
    return ApiError(ErrorKind.INVALID_REQUEST, text, param=f"parameters.{name}")


def _quoted(words: list[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"


_UNSAID = Thinking()
_ANY_TEXT = AnyText()
