from pathlib import Path

import msgspec
import pytest

from qwenbox.engines import gguf
from qwenbox.engines.llamacpp.config import LlamaCppConfig
from qwenbox.engines.llamacpp.job import Weights, job, read_prompt
from qwenbox.engines.llamacpp.pictures import Prompt
from qwenbox.engines.llamacpp.wire import Chunk
from qwenbox.engines.prompt import PromptTemplate
from qwenbox.engines.tokenizer import Tokenizer
from qwenbox.terms.caller import SeedPolicy
from qwenbox.terms.chat import AnyText, ChatRequest, JsonObject, Message, Role, Sampling, TextPart
from qwenbox.terms.chat import Thinking as Thought
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from support.tiny_gguf import TEMPLATE, TINY, write_gguf

CONFIG = LlamaCppConfig(weights="tiny", kv_tokens=4096, context_tokens=64)


@pytest.fixture(name="weights")
def _weights(tmp_path: Path) -> Weights:
    tiny = gguf.read(write_gguf(tmp_path / "tiny.gguf", TINY))
    return Weights(tiny, Tokenizer(tiny), PromptTemplate(TEMPLATE))


def _chat(sampling: Sampling | None = None, **extensions: bytes) -> ChatRequest:
    message = Message(role=Role.USER, content=(TextPart(text="hello"),))
    return ChatRequest(model="m", messages=(message,), sampling=sampling or Sampling(), extensions=extensions)


@pytest.mark.parametrize(
    ("seed", "extensions", "policy", "is_exact"),
    [
        (None, {}, SeedPolicy.EXACT, False),
        (7, {}, SeedPolicy.EXACT, True),
        (0, {}, SeedPolicy.EXACT, True),
        (7, {"qwenbox.seeds": b"pass"}, SeedPolicy.EXACT, False),
        (7, {}, SeedPolicy.PASS, False),
    ],
)
def test_job_keeps_a_seed_exactly_only_where_it_was_promised(
    weights: Weights, seed: int | None, extensions: dict[str, bytes], policy: SeedPolicy, is_exact: bool
) -> None:
    config = msgspec.structs.replace(CONFIG, seeds=policy)

    made = job(weights, Prompt(ids=[1, 2]), _chat(Sampling(seed=seed), **extensions), config)

    assert (is_exact, not is_exact) == (made.is_exact, made.completion.cache_prompt)


@pytest.mark.parametrize("length", [0, 64, 65, 1000])
def test_job_names_the_range_when_the_prompt_leaves_no_room(weights: Weights, length: int) -> None:
    with pytest.raises(ApiError) as raised:
        job(weights, Prompt(ids=[1] * length), _chat(), CONFIG)

    assert (ErrorKind.CONTEXT_TOO_LONG, "Range of input length should be [1, 63]") == (raised.value.kind, raised.value.message)


@pytest.mark.parametrize(("length", "wish", "sent"), [(63, 50, 1), (10, 50, 50), (10, 60, 54), (10, None, 54)])
def test_job_asks_for_no_more_tokens_than_the_context_holds(weights: Weights, length: int, wish: int | None, sent: int) -> None:
    request = msgspec.structs.replace(_chat(), max_output_tokens=wish)

    assert sent == job(weights, Prompt(ids=[1] * length), request, CONFIG).completion.n_predict


@pytest.mark.anyio
async def test_raw_prompt_means_its_control_tokens(weights: Weights) -> None:
    prompt = await read_prompt(weights, CompletionRequest(model="m", prompt="<|fim_prefix|>hello"))

    assert weights.tokenizer.control["<|fim_prefix|>"] == prompt.ids[0]


@pytest.mark.anyio
async def test_suffix_is_put_around_the_hole_as_the_weights_learned_it(weights: Weights) -> None:
    prompt = await read_prompt(weights, CompletionRequest(model="m", prompt="hello<|im_end|>", suffix=" world"))

    control = weights.tokenizer.control
    assert "<|fim_prefix|>hello<|im_end|><|fim_suffix|> world<|fim_middle|>" == weights.tokenizer.text(prompt.ids)
    assert control["<|im_end|>"] not in prompt.ids


@pytest.mark.anyio
async def test_suffix_is_refused_when_the_weights_have_no_tokens_for_it(tmp_path: Path) -> None:
    plain = TINY | {"tokenizer.ggml.token_type": [1] * len(TINY["tokenizer.ggml.tokens"])}
    tiny = gguf.read(write_gguf(tmp_path / "plain.gguf", plain))
    weights = Weights(tiny, Tokenizer(tiny), PromptTemplate(TEMPLATE))

    with pytest.raises(ApiError) as raised:
        await read_prompt(weights, CompletionRequest(model="m", prompt="a", suffix="b"))

    assert ("suffix", ErrorKind.INVALID_REQUEST) == (raised.value.param, raised.value.kind)


@pytest.mark.parametrize("change", [{"slots": 0}, {"context_tokens": 8192}, {"context_tokens": 0}, {"batch_tokens": 0}, {"unheard_of": 1}])
def test_config_refuses_what_cannot_work(change: dict[str, int]) -> None:
    table = {"kind": "llamacpp", "weights": "tiny", "kv_tokens": 4096, "context_tokens": 64} | change

    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(table, LlamaCppConfig)


THINKING_TEMPLATE = TEMPLATE + "{%- if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


@pytest.mark.anyio
@pytest.mark.parametrize(("source", "wish", "thinks", "is_open"), [
    (TEMPLATE, True, False, False),
    (THINKING_TEMPLATE, True, True, False),
    (THINKING_TEMPLATE, False, False, False),
    (TEMPLATE + "<think>\n", True, True, True),
])  # fmt: skip
async def test_job_thinks_when_the_template_lets_it(weights: Weights, source: str, wish: bool, thinks: bool, is_open: bool) -> None:
    weights = Weights(weights.gguf, weights.tokenizer, PromptTemplate(source))
    request = msgspec.structs.replace(_chat(), thinking=Thought(is_enabled=wish))

    made = job(weights, await read_prompt(weights, request), request, CONFIG)

    assert (thinks, is_open) == (made.thinks, made.is_thought_open)


def test_job_goes_on_from_the_thoughts_when_they_were_cut(weights: Weights) -> None:
    thinking = Weights(weights.gguf, weights.tokenizer, PromptTemplate(TEMPLATE + "<think>\n"))
    request = msgspec.structs.replace(_chat(), thinking=Thought(is_enabled=True, budget_tokens=1), max_output_tokens=30)
    made = job(thinking, Prompt(ids=weights.tokenizer.encode("hello<think>\n")), request, CONFIG)
    voice = made.voice(0)
    voice.hear(Chunk(content="hm", tokens=(0,), tokens_predicted=1))

    body = made.after_thoughts(0, voice)

    assert "hello<think>\nhm\n</think>\n\n" == weights.tokenizer.text(body.prompt)
    assert 29 == body.n_predict


def test_job_sends_the_promise_about_its_form_as_a_grammar(weights: Weights) -> None:
    plain, bound = (
        job(weights, Prompt(ids=[1, 2]), msgspec.structs.replace(_chat(), response_format=form), CONFIG)
        for form in (AnyText(), JsonObject())
    )

    assert "" == plain.completion.grammar
    assert bound.completion.grammar.startswith("%llguidance")


def test_job_refuses_a_partial_answer_that_must_also_be_json(weights: Weights) -> None:
    begun = Message(role=Role.ASSISTANT, content=(TextPart(text="{"),), is_partial=True)
    request = ChatRequest(model="m", messages=(*_chat().messages, begun), response_format=JsonObject())

    with pytest.raises(ApiError) as raised:
        job(weights, Prompt(ids=[1, 2]), request, CONFIG)

    assert ErrorKind.INVALID_REQUEST is raised.value.kind
