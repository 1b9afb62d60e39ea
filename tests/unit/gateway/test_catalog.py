"""The catalog: names to cards, defaults by level, and the card's limits kept exactly."""

import msgspec
import pytest

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.catalog import ANY_MODEL, Catalog, ModelEntry, complete_chat, fit
from qwenbox.terms.caller import Caller, Compat, SeedPolicy
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Role, Sampling, TextPart, Thinking, ToolSpec
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.model import Capability, ModelCard

CALLER = Caller(account_id="a", key_id="k")
CARD = ModelCard(context_tokens=100, max_output_tokens=20, sampling=Sampling(temperature=0.7, top_p=0.8, top_k=20))
ASKED = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text="hi"),)),))


def catalog(*names: str, aliases: tuple[str, ...] = ()) -> Catalog:
    entries = tuple(ModelEntry(name=name, aliases=aliases, card=CARD, deployments=("echo",)) for name in names)
    return Catalog(entries, {"echo": Echo(EchoConfig())})


def test_resolve_finds_the_model_by_alias() -> None:
    assert catalog("qwen-plus", aliases=("qwen-plus-latest",)).resolve("qwen-plus-latest", CALLER).entry.name == "qwen-plus"


@pytest.mark.parametrize("name", ["", "nope", "../etc/passwd", "QWEN-PLUS", "*x"])
def test_resolve_refuses_unknown_names(name: str) -> None:
    with pytest.raises(ApiError) as refused:
        catalog("qwen-plus").resolve(name, CALLER)
    assert (ErrorKind.MODEL_NOT_FOUND, name) == (refused.value.kind, refused.value.param)


def test_resolve_takes_any_name_when_the_catalog_says_so() -> None:
    assert catalog("qwen-plus", ANY_MODEL).resolve("whatever", CALLER).entry.name == ANY_MODEL


def test_resolve_refuses_a_model_the_key_may_not_use() -> None:
    with pytest.raises(ApiError) as refused:
        catalog("qwen-plus").resolve("qwen-plus", msgspec.structs.replace(CALLER, models=frozenset({"other"})))
    assert refused.value.kind is ErrorKind.FORBIDDEN


@pytest.mark.parametrize("name", ["whatever", "qwen-plus-latest", "qwen-plus"])
def test_resolve_takes_the_very_name_that_the_key_has(name: str) -> None:
    """Also where another one answers to it: of an alias the model, of a name that nothing else has the one for any name."""
    known = Catalog(
        (
            ModelEntry(name="qwen-plus", aliases=("qwen-plus-latest",), card=CARD, deployments=("echo",)),
            ModelEntry(name=ANY_MODEL, card=CARD, deployments=("echo",)),
        ),
        {"echo": Echo(EchoConfig())},
    )
    limited = msgspec.structs.replace(CALLER, models=frozenset({name}))
    assert known.resolve(name, limited).entry.name == known.resolve(name, CALLER).entry.name
    for other in {"another", "qwen-plus-latest", "qwen-plus"} - {name, "qwen-plus-latest" if name == "qwen-plus" else ""}:
        with pytest.raises(ApiError) as refused:
            known.resolve(other, limited)
        assert refused.value.kind is ErrorKind.FORBIDDEN


class Fetched(Echo):
    """Whose weights may not be here."""

    def __init__(self, *, is_here: bool) -> None:
        super().__init__(EchoConfig())
        self.is_here = is_here
        self.asked = 0

    def __getattribute__(self, name: str) -> object:
        if name == "is_here":
            self.asked += 1
        return super().__getattribute__(name)


def of(*engines: Echo) -> Catalog:
    named = {str(number): engine for number, engine in enumerate(engines)}
    return Catalog((ModelEntry(name="m", card=CARD, deployments=tuple(named)),), named)


def found(catalog: Catalog) -> list[str]:
    return [deployment.name for deployment in catalog.resolve("m", CALLER).deployments]


def test_resolve_passes_over_weights_that_are_not_here_until_they_are() -> None:
    coming = Fetched(is_here=False)
    several = of(coming, Echo(EchoConfig()), Fetched(is_here=False))
    assert ["1"] == found(several)
    assert several.resolve("m", CALLER) is several.resolve("m", CALLER)
    coming.is_here = True
    assert ["0", "1"] == found(several)
    coming.is_here = False
    assert ["1"] == found(several)


def test_resolve_keeps_all_when_no_weights_are_here_so_that_the_error_names_them() -> None:
    assert ["0", "1"] == found(of(Fetched(is_here=False), Fetched(is_here=False)))


def test_resolve_asks_nothing_when_nobody_else_could_answer() -> None:
    only = Fetched(is_here=False)
    alone = of(only)
    asked = only.asked
    assert (["0"], asked) == (found(alone), only.asked)


@pytest.mark.parametrize(("level", "expected"), [(Compat.DOCUMENTED, (1.0, 1.0, 20)), (Compat.STRICT, (0.7, 0.8, 20))])
def test_complete_takes_defaults_from_document_or_card(level: Compat, expected: tuple[float, float, int]) -> None:
    sampling = complete_chat(ASKED, CARD, CALLER, level).sampling
    assert expected == (sampling.temperature, sampling.top_p, sampling.top_k)
    assert sampling.seed is None


def test_complete_says_what_the_caller_left_to_it() -> None:
    defaults = complete_chat(ASKED, CARD, CALLER, Compat.STRICT).defaults
    assert (0.7, 20, 20, False) == tuple(defaults[name] for name in ("temperature", "top_k", "max_output_tokens", "is_enabled"))


def test_complete_keeps_what_the_caller_sent() -> None:
    asked = msgspec.structs.replace(ASKED, sampling=Sampling(temperature=0.0, top_k=0, seed=7), max_output_tokens=5)
    completed = complete_chat(asked, CARD, CALLER, Compat.DOCUMENTED)
    assert ["frequency_penalty", "is_enabled", "presence_penalty", "repetition_penalty", "top_p"] == sorted(completed.defaults)
    assert (0.0, 0, 7, 5) == (
        completed.sampling.temperature,
        completed.sampling.top_k,
        completed.sampling.seed,
        completed.max_output_tokens,
    )


@pytest.mark.parametrize("tokens", [0, -1, 21])
def test_complete_refuses_max_tokens_outside_the_card(tokens: int) -> None:
    with pytest.raises(ApiError) as refused:
        complete_chat(msgspec.structs.replace(ASKED, max_output_tokens=tokens), CARD, CALLER, Compat.DOCUMENTED)
    assert refused.value.message == "Range of max_tokens should be [1, 20]"


@pytest.mark.parametrize(
    "change",
    [
        {"thinking": Thinking(is_enabled=True)},
        {"tools": (ToolSpec(name="f"),)},
        {"top_logprobs": 0},
        {"messages": (Message(role=Role.USER, content=(ImagePart(url="https://example.com/a.png"),)),)},
    ],
)
def test_complete_refuses_what_the_card_cannot_honour(change: dict[str, object]) -> None:
    with pytest.raises(ApiError) as refused:
        complete_chat(msgspec.structs.replace(ASKED, **change), CARD, CALLER, Compat.DOCUMENTED)
    assert refused.value.kind is ErrorKind.INVALID_REQUEST


def test_complete_lets_the_card_decide_about_thinking_when_the_caller_did_not() -> None:
    card = msgspec.structs.replace(CARD, is_thinking_default=True, capabilities=frozenset({Capability.THINKING}))
    assert complete_chat(ASKED, card, CALLER, Compat.DOCUMENTED).thinking.is_enabled is True


def test_complete_marks_seeds_that_are_only_passed_on() -> None:
    caller = msgspec.structs.replace(CALLER, seeds=SeedPolicy.PASS)
    assert complete_chat(ASKED, CARD, caller, Compat.DOCUMENTED).extensions == {"qwenbox.seeds": b"pass"}


def test_fit_cuts_the_answer_to_what_is_left_of_the_context() -> None:
    assert fit(ASKED, 95, CARD) == 5
    assert fit(ASKED, 10, CARD) == 20


def test_fit_refuses_one_token_past_the_context_with_the_services_text() -> None:
    assert fit(ASKED, 99, CARD) == 1
    with pytest.raises(ApiError) as refused:
        fit(ASKED, 100, CARD)
    assert (ErrorKind.CONTEXT_TOO_LONG, "Range of input length should be [1, 99]") == (refused.value.kind, refused.value.message)
