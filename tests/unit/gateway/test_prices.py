"""The price book: by model, date and length; a bill never above its reservation; lines that sum to the cost."""

import itertools
from datetime import UTC, date, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.config import load, profiles
from qwenbox.db import Database
from qwenbox.gateway.counters.base import PRICE_UNIT_TOKENS
from qwenbox.gateway.prices import PriceRow, Prices, Tariff, record, recorded
from qwenbox.terms.call import Lane
from qwenbox.terms.model import PriceTier
from qwenbox.terms.usage import Usage

PLUS = PriceRow(
    model="qwen-plus",
    since=date(2025, 1, 1),
    currency="CNY",
    tiers=(
        PriceTier(up_to_tokens=100, input_micros=800_000, output_micros=2_000_000, reasoning_micros=8_000_000),
        PriceTier(input_micros=2_400_000, output_micros=20_000_000, image_micros=3_000_000),
    ),
)
NOW = datetime(2026, 4, 1, tzinfo=UTC).timestamp()


def tariff(row: PriceRow = PLUS) -> Tariff:
    return Prices((row,)).tariff(row.model, NOW)


def flat(since: date, micros: int, model: str = "m") -> PriceRow:
    return PriceRow(model=model, since=since, currency="CNY", tiers=(PriceTier(input_micros=micros, output_micros=micros),))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(input_tokens=10, output_tokens=10), 8 + 20),
        (Usage(input_tokens=100, output_tokens=10), 80 + 20),
        # One token more, and the whole request is billed at the next tier.
        (Usage(input_tokens=101, output_tokens=10), 243 + 200),
        (Usage(input_tokens=100, output_tokens=0, cached_tokens=50), 40 + 8),
        (Usage(input_tokens=10, output_tokens=10, reasoning_tokens=4), 8 + 12 + 32),
        # Without a price of their own, reasoning costs what output costs and pictures what text costs.
        (Usage(input_tokens=200, output_tokens=10, reasoning_tokens=4), 480 + 200),
        (Usage(input_tokens=10, output_tokens=0, image_tokens=5), 8),
        (Usage(input_tokens=200, output_tokens=0, image_tokens=100), 240 + 300),
        # Everything beyond a micro-unit is rounded up once, not class by class.
        (Usage(input_tokens=1, output_tokens=0), 1),
        (Usage(input_tokens=2, output_tokens=1, cached_tokens=1), 3),
        (Usage(input_tokens=0, output_tokens=0), 0),
        # More parts than a whole.
        (Usage(input_tokens=10, output_tokens=10, cached_tokens=99, image_tokens=99, reasoning_tokens=99), 82),
    ],
)
def test_cost_is_the_sum_of_its_classes(usage: Usage, expected: int) -> None:
    assert expected == tariff().cost_micros(usage, Lane.INTERACTIVE)


def test_batch_costs_half_and_its_cached_input_no_less() -> None:
    plain = Usage(input_tokens=100, output_tokens=10)
    cached = msgspec.structs.replace(plain, cached_tokens=100)
    assert [50, 50] == [tariff().cost_micros(usage, Lane.BATCH) for usage in (plain, cached)]


def test_discounted_prices_are_rounded_up() -> None:
    usage = Usage(input_tokens=1_000_000, output_tokens=0, cached_tokens=1_000_000)
    row = flat(date(2025, 1, 1), 3)
    assert [1, 2] == [tariff(row).cost_micros(usage, lane) for lane in Lane]


def test_cache_hit_costs_nothing() -> None:
    assert 0 == tariff().cost_micros(Usage(input_tokens=100, output_tokens=10), Lane.INTERACTIVE, is_cache_hit=True)


def test_price_changes_at_midnight_utc() -> None:
    prices = Prices((flat(date(2026, 4, 1), 2_000_000), flat(date(2025, 1, 1), 1_000_000)))
    usage = Usage(input_tokens=1, output_tokens=0)
    costs = [prices.tariff("m", at).cost_micros(usage, Lane.INTERACTIVE) for at in (NOW - 1, NOW - 1e-3, NOW, NOW - 1, NOW + 1)]
    assert [1, 1, 2, 1, 2] == costs
    assert prices.tariff("m", NOW).version.startswith("m@2026-04-01.")


def test_model_is_free_before_its_first_price_and_without_one() -> None:
    prices = Prices((flat(date(2026, 4, 1), 1),))
    for model, at in (("m", NOW - 1), ("other", NOW)):
        assert ("", "CNY") == (prices.tariff(model, at).version, prices.tariff(model, at).currency)
        assert 0 == prices.tariff(model, at).cost_micros(Usage(input_tokens=9, output_tokens=9), Lane.INTERACTIVE)
        assert (0, 0) == prices.tariff(model, at).worst(100, Lane.INTERACTIVE)


def test_alias_has_its_models_price_unless_it_has_its_own() -> None:
    rows = (flat(date(2025, 1, 1), 1, "m"), flat(date(2025, 1, 1), 2, "m-snapshot"))
    prices = Prices(rows, {"m-latest": "m", "m-snapshot": "m"})
    found = [prices.tariff(name, NOW).price.tiers[0].input_micros for name in ("m", "m-latest", "m-snapshot", "m-latest")]
    assert [1, 1, 2, 1] == found


def test_star_prices_every_other_name() -> None:
    prices = Prices((flat(date(2025, 1, 1), 1, "m"), flat(date(2025, 1, 1), 2, "*")))
    assert [1, 2] == [prices.tariff(name, NOW).price.tiers[0].input_micros for name in ("m", "anything")]


def test_made_up_names_are_not_kept() -> None:
    prices = Prices((flat(date(2025, 1, 1), 2, "*"),))
    for number in range(10):
        prices.tariff(f"made up {number}", NOW)
    assert {} == prices._latest


def test_version_changes_when_a_row_is_edited_in_place() -> None:
    edited = msgspec.structs.replace(PLUS, batch_permille=400)
    assert PLUS.version != edited.version
    assert PLUS.version == msgspec.structs.replace(PLUS).version


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tiers": ()}, "no tiers"),
        ({"tiers": (PriceTier(input_micros=-1, output_micros=1),)}, "negative"),
        ({"tiers": (PriceTier(input_micros=1, output_micros=1, reasoning_micros=-1),)}, "negative"),
        ({"batch_permille": -1}, "negative"),
        ({"tiers": (PriceTier(up_to_tokens=5, input_micros=1, output_micros=1),)}, "the last tier has an end"),
        ({"tiers": (PLUS.tiers[0], PLUS.tiers[0], PLUS.tiers[1])}, "tiers overlap"),
        ({"tiers": (PLUS.tiers[1], PLUS.tiers[1])}, "tiers overlap"),
        ({"tiers": (PriceTier(up_to_tokens=0, input_micros=1, output_micros=1), PLUS.tiers[1])}, "tiers overlap"),
    ],
)
def test_bad_rows_are_refused_by_name(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        msgspec.structs.replace(PLUS, **changes)
    assert "'qwen-plus'" in str(refused.value)


PRICE = st.integers(0, 100_000_000)
TIERS = st.lists(
    st.builds(
        PriceTier,
        input_micros=PRICE,
        output_micros=PRICE,
        cached_micros=st.none() | PRICE,
        image_micros=st.none() | PRICE,
        reasoning_micros=st.none() | PRICE,
    ),
    min_size=1,
    max_size=4,
)
TOKENS = st.integers(0, 2_000)
ROWS = st.builds(
    lambda tiers, ends, cached, batch: PriceRow(
        model="m",
        since=date(2025, 1, 1),
        currency="CNY",
        tiers=tuple(
            msgspec.structs.replace(tier, up_to_tokens=end)
            for tier, end in zip(tiers, [*sorted(ends)[: len(tiers) - 1], None], strict=True)
        ),
        cached_permille=cached,
        batch_permille=batch,
    ),
    TIERS,
    st.sets(st.integers(1, 1_500), min_size=3, max_size=3),
    st.integers(0, 1_500),
    st.integers(0, 1_500),
)
USAGES = st.builds(
    Usage,
    input_tokens=TOKENS,
    output_tokens=TOKENS,
    cached_tokens=st.none() | TOKENS,
    image_tokens=st.none() | TOKENS,
    reasoning_tokens=st.none() | TOKENS,
)


@given(row=ROWS, usage=USAGES, lane=st.sampled_from(Lane), more=TOKENS)
def test_worst_case_is_never_below_the_cost_and_lines_sum_to_it(row: PriceRow, usage: Usage, lane: Lane, more: int) -> None:
    prices = tariff(row)
    input_scaled, output_price = prices.worst(usage.input_tokens + more, lane)
    cost = prices.cost_micros(usage, lane)
    assert cost <= -(-(input_scaled + usage.output_tokens * output_price) // PRICE_UNIT_TOKENS)
    lines = prices.lines(usage, lane)
    assert cost == sum(line.amount_micros for line in lines)
    assert usage.total_tokens == sum(line.tokens for line in lines)
    for line in lines:
        assert abs(line.amount_micros - line.tokens * line.price_micros / PRICE_UNIT_TOKENS) < 1


@pytest.mark.parametrize("profile", profiles())
def test_one_call_costs_more_from_turbo_to_plus_to_max_in_every_profile(profile: str) -> None:
    config = load({"profile": profile})
    cards = {entry.name: entry.card for entry in config.model}
    usages = [
        Usage(input_tokens=size, output_tokens=100, reasoning_tokens=thought)
        for size in (1, 1_000, min(card.input_limit_tokens for card in cards.values()))
        for thought in (0, 50)
    ]
    for lower, higher in itertools.pairwise(("qwen-turbo", "qwen-plus", "qwen-max")):
        for usage, lane in itertools.product(usages, Lane):
            costs = [config.prices.tariff(name, NOW).cost_micros(usage, lane) for name in (lower, higher)]
            assert costs[0] < costs[1], (lower, higher, usage, lane)


@pytest.mark.parametrize(("name", "cost"), [("qwen-turbo", 900), ("qwen-plus", 2_800), ("qwen-max", 12_000), ("qwen-flash", 1_650)])
def test_shipped_book_has_the_documents_prices(name: str, cost: int) -> None:
    assert cost == load().prices.tariff(name, NOW).cost_micros(Usage(input_tokens=1_000, output_tokens=1_000), Lane.INTERACTIVE)


@pytest.mark.anyio
async def test_recorded_prices_stay_when_the_book_is_edited(database: Database) -> None:
    edited = msgspec.structs.replace(PLUS, tiers=(PriceTier(input_micros=1, output_micros=1),))
    for row in (PLUS, PLUS, edited):
        await record(database, Prices((row,)))
    usage = Usage(input_tokens=100, output_tokens=10, cached_tokens=3)
    for row in (PLUS, edited):
        kept = await recorded(database, row.version)
        assert kept is not None
        assert (row.version, tariff(row).lines(usage, Lane.BATCH)) == (kept.version, kept.lines(usage, Lane.BATCH))
    assert await recorded(database, "gone") is None


def test_a_picture_has_its_own_price():
    row = PriceRow(
        model="wan", since=date(2025, 1, 1), currency="CNY", tiers=(PriceTier(input_micros=0, output_micros=0, picture_micros=140_000),)
    )
    tariff = Prices((row,)).tariff("wan", datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    drawn = Usage(input_tokens=9, output_tokens=3)
    assert 420_000 == tariff.cost_micros(drawn, Lane.INTERACTIVE)
    assert [("pictures", 3, 420_000)] == [
        (line.kind, line.tokens, line.amount_micros) for line in tariff.lines(drawn, Lane.INTERACTIVE) if line.amount_micros
    ]
    # What is reserved is what is billed.
    input_scaled, output_price = tariff.worst(9, Lane.INTERACTIVE)
    assert 420_000 * 1_000_000 == input_scaled + 3 * output_price
