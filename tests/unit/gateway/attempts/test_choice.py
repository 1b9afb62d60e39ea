"""Which deployment is asked first: by order, by lottery, by load, by the prompt's beginning."""

from collections import Counter
from random import Random

import pytest

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.attempts import choice
from qwenbox.gateway.attempts.standing import AttemptsConfig, Standing, Standings
from qwenbox.gateway.catalog import Deployment, ModelEntry
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import Capacity
from qwenbox.terms.model import Choice, ModelCard

NAMES = ("a", "b", "c")


def entry(how: Choice, shares: dict[str, float] | None = None) -> ModelEntry:
    return ModelEntry(name="m", card=ModelCard(context_tokens=100), deployments=NAMES, choice=how, shares=shares or {})


@pytest.fixture
def standings() -> list[Standing]:
    table = Standings(AttemptsConfig())
    return [table.of(Deployment(name=name, engine=Echo(EchoConfig()), counter=None, capacity=Capacity())) for name in NAMES]


def asking(*texts: str, system: str = "") -> ChatRequest:
    said = [(Role.SYSTEM, system)] if system else []
    said += [(Role.ASSISTANT if place % 2 else Role.USER, text) for place, text in enumerate(texts)]
    return ChatRequest(model="m", messages=tuple(Message(role=role, content=(TextPart(text=text),)) for role, text in said))


def names(how: ModelEntry, standings: list[Standing], request: ChatRequest | None = None, random: Random | None = None) -> list[str]:
    draw = (random or Random(7)).random
    return [standing.name for standing in choice.order(how, standings, request or asking("hi"), draw)]


def test_ordered_is_as_listed(standings: list[Standing]):
    assert ["a", "b", "c"] == names(entry(Choice.ORDERED), standings)


def test_weighted_goes_by_the_shares(standings: list[Standing]):
    random, how = Random(1), entry(Choice.WEIGHTED, {"a": 6, "b": 3, "c": 0})
    orders = [names(how, standings, random=random) for _ in range(6_000)]
    first = Counter(order[0] for order in orders)
    assert 3_800 < first["a"] < 4_200
    assert 0 == first["c"]
    assert {"c"} == {order[2] for order in orders}


def test_least_busy_goes_where_fewest_run_for_their_share(standings: list[Standing]):
    for standing, running in zip(standings, (3, 2, 2), strict=True):
        standing.running = running
    assert ["b", "c", "a"] == names(entry(Choice.LEAST_BUSY), standings)
    assert ["a", "b", "c"] == names(entry(Choice.LEAST_BUSY, {"a": 4}), standings)


def test_prefix_keeps_a_conversation_in_one_place(standings: list[Standing]):
    how = entry(Choice.PREFIX)
    for number in range(50):
        first = names(how, standings, asking(f"question {number}"))
        assert first == names(how, standings, asking(f"question {number}", "answer", "and then?"))
        assert first == names(how, list(reversed(standings)), asking(f"question {number}"))


def test_prefix_keeps_a_long_system_prompt_in_one_place(standings: list[Standing]):
    places = {names(entry(Choice.PREFIX), standings, asking(f"question {number}", system="Rules. " * 100))[0] for number in range(50)}
    assert 1 == len(places)


def test_prefix_spreads_and_moves_only_what_must(standings: list[Standing]):
    how = entry(Choice.PREFIX)
    before = [names(how, standings, asking(f"question {number}"))[0] for number in range(600)]
    after = [names(how, standings[:2], asking(f"question {number}"))[0] for number in range(600)]
    assert all(130 < count < 270 for count in Counter(before).values())
    assert all(old == new for old, new in zip(before, after, strict=True) if old != "c")


def test_prefix_leaves_who_is_much_busier(standings: list[Standing]):
    how = entry(Choice.PREFIX)
    at_home = names(how, standings)
    busy = next(standing for standing in standings if standing.name == at_home[0])
    busy.running = 4
    assert at_home == names(how, standings)
    busy.running = 5
    assert [*at_home[1:], at_home[0]] == names(how, standings)


def test_prefix_of_a_raw_prompt_is_its_beginning():
    prompts = [CompletionRequest(model="m", prompt="x" * 5_000 + end) for end in ("one", "two")]
    assert choice.prefix(prompts[0]) == choice.prefix(prompts[1])


@pytest.mark.parametrize("shares", [{"d": 1.0}, {"a": -1.0}, {"a": float("inf")}])
def test_an_entry_refuses_shares_that_make_no_sense(shares: dict[str, float]):
    with pytest.raises(ValueError, match="share"):
        entry(Choice.WEIGHTED, shares)
