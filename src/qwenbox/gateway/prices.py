"""This is where tokens get their price: the price book, by model, date and length of the input. docs/money.md tells the rules."""

import hashlib
import itertools
from bisect import bisect_left
from collections.abc import Mapping
from datetime import UTC, date, datetime, time

import msgspec
from sqlalchemy import Column, Table, Text, select, text

from qwenbox.db import METADATA, Database
from qwenbox.gateway.counters.base import PRICE_UNIT_TOKENS
from qwenbox.terms.call import Lane
from qwenbox.terms.model import Price, PriceTier
from qwenbox.terms.usage import Usage

PRICE_VERSIONS = Table(
    "price_versions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("row", Text, nullable=False),
)

# Two workers that start together both know the same row.
_RECORD = text("INSERT INTO price_versions (id, row) VALUES (:id, :row) ON CONFLICT (id) DO NOTHING")

_PERMILLE = 1_000
_DIGEST_LENGTH = 6


class PriceRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[price]]` of the book: what `model` (a public name or one of its aliases) costs from 00:00 UTC of `from` on.

    cached_permille: of the input price, for input the engine had read before, where a tier does not say it. batch_permille: of every
    price, in the lane for batches; cached input is not cheaper still there.
    """

    model: str
    since: date = msgspec.field(name="from")
    currency: str
    tiers: tuple[PriceTier, ...]
    cached_permille: int = 200
    batch_permille: int = 500

    def __post_init__(self) -> None:
        wrong = _wrong(self)
        if wrong:
            raise ValueError(f"the price of {self.model!r} from {self.since}: {wrong}")

    @property
    def version(self) -> str:
        """Names this row for good: a row that is edited in place is another version, so old receipts keep their prices."""
        digest = hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:_DIGEST_LENGTH]
        return f"{self.model}@{self.since}.{digest}"


class PriceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One token class of a receipt. price_micros: per million tokens (or pictures), with every discount in it.

    amount_micros: tokens × price, rounded so that the lines sum to the cost; off by less than one micro-unit.
    """

    kind: str
    tokens: int
    price_micros: int
    amount_micros: int


class Tariff:
    """The prices that apply to one model at one moment. Not changed after it is made, so calls may share it."""

    __slots__ = ("_batch", "_bounds", "_interactive", "currency", "price", "version")

    def __init__(self, row: PriceRow, version: str) -> None:
        self.version = version
        self.currency = row.currency
        self.price = Price(version=version, currency=row.currency, tiers=row.tiers)
        # The last tier has no end.
        self._bounds = [tier.up_to_tokens or 0 for tier in row.tiers[:-1]]
        self._interactive = _rates(row, _PERMILLE, row.cached_permille)
        self._batch = _rates(row, row.batch_permille, None)

    def cost_micros(self, usage: Usage, lane: Lane, *, is_cache_hit: bool = False) -> int:
        """What a call costs, in whole micro-units, rounded up once. A hit of the response cache costs nothing."""
        return 0 if is_cache_hit else _rounded(sum(tokens * price for _, tokens, price in self._classes(usage, lane)))

    def lines(self, usage: Usage, lane: Lane) -> tuple[PriceLine, ...]:
        """The cost, class by class; classes without tokens are left out."""
        lines: list[PriceLine] = []
        scaled = billed_micros = 0
        for kind, tokens, price in self._classes(usage, lane):
            scaled += tokens * price
            amount_micros = _rounded(scaled) - billed_micros
            billed_micros += amount_micros
            if tokens:
                lines.append(PriceLine(kind=kind, tokens=tokens, price_micros=price, amount_micros=amount_micros))
        return tuple(lines)

    def worst(self, input_tokens: int, lane: Lane) -> tuple[int, int]:
        """(input_scaled, output_price) of `counters.base.Worst`: no call with at most that much input costs more."""
        rates = self._batch if lane is Lane.BATCH else self._interactive
        # Up to the input's own tier: a count that turns out lower may land in a tier before it.
        possible = rates[: self._tier(input_tokens) + 1]
        return input_tokens * max(rate.worst_input for rate in possible), max(rate.worst_output for rate in possible)

    def _tier(self, input_tokens: int) -> int:
        return bisect_left(self._bounds, input_tokens)

    def _classes(self, usage: Usage, lane: Lane) -> tuple[tuple[str, int, int], ...]:
        """(class, tokens, price); every token is in exactly one. The whole request is billed at its input's tier."""
        rates = self._batch if lane is Lane.BATCH else self._interactive
        rate = rates[self._tier(usage.input_tokens)]
        # An engine that reports more of a part than there is of the whole is not allowed to make a price negative.
        cached = min(usage.cached_tokens or 0, usage.input_tokens)
        image = min(usage.image_tokens or 0, usage.input_tokens - cached)
        reasoning = min(usage.reasoning_tokens or 0, usage.output_tokens)
        return (
            ("input", usage.input_tokens - cached - image, rate.input),
            ("cached input", cached, rate.cached),
            ("image input", image, rate.image),
            (rate.output_kind, usage.output_tokens - reasoning, rate.output),
            ("reasoning output", reasoning, rate.reasoning),
        )


class Prices:
    """The book. aliases: other name → the model's name; an alias has its model's price unless a row names it.

    Raises ValueError for two currencies, or two rows for the same model and date. A row for "*" prices every name without a row.
    """

    def __init__(self, rows: tuple[PriceRow, ...], aliases: Mapping[str, str] | None = None) -> None:
        self.rows = rows
        self.currency = _currency(rows)
        self._aliases = aliases or {}
        self._free = _Valid(Tariff(PriceRow(model="", since=date.min, currency=self.currency, tiers=_NO_PRICE), ""), float("-inf"))
        self._dated = {model: _by_date(model, [row for row in rows if row.model == model]) for model in {row.model for row in rows}}
        self._latest: dict[str, _Valid] = {}

    def tariff(self, model: str, at: float) -> Tariff:
        """What `model` (a public name or alias) costs at a moment (seconds since the epoch); without a row, nothing and version ""."""
        latest = self._latest.get(model)
        if latest is None or not latest.since <= at < latest.until:
            latest = self._find(model, at)
        return latest.tariff

    def _find(self, model: str, at: float) -> "_Valid":
        name = next((name for name in (model, self._aliases.get(model), "*") if name in self._dated), None)
        if name is None:
            return self._free
        found = next((valid for valid in self._dated[name] if valid.since <= at < valid.until), self._free)
        # Only names of ours: whatever a client makes up must not stay in memory.
        if found is not self._free and (model == name or model in self._aliases):
            self._latest[model] = found
        return found


async def record(database: Database, prices: Prices) -> None:
    """Keep the book's rows for good, so that receipts can be written after the book was edited. Before the first call."""
    known = {row["id"] for row in await database.read(select(PRICE_VERSIONS.c.id))}
    fresh = [row for row in prices.rows if row.version not in known]
    if fresh:
        await database.write(*(_RECORD.bindparams(id=row.version, row=msgspec.json.encode(row).decode()) for row in fresh))


async def recorded(database: Database, version: str) -> Tariff | None:
    """The tariff that a call was billed by."""
    rows = await database.read(select(PRICE_VERSIONS.c.row).where(PRICE_VERSIONS.c.id == version))
    return Tariff(msgspec.json.decode(str(rows[0]["row"]), type=PriceRow), version) if rows else None


_NO_PRICE = (PriceTier(input_micros=0, output_micros=0),)


class _Valid:
    __slots__ = ("since", "tariff", "until")

    def __init__(self, tariff: Tariff, since: float, until: float = float("inf")) -> None:
        self.tariff = tariff
        self.since = since
        self.until = until


class _Rate:
    """Whole micro-units per million tokens of one tier in one lane."""

    __slots__ = ("cached", "image", "input", "output", "output_kind", "reasoning", "worst_input", "worst_output")

    def __init__(self, tier: PriceTier, permille: int, cached_permille: int | None) -> None:
        def price(micros: int, share: int = permille) -> int:
            # Rounded up here already, so that a reservation and a bill work with the same whole prices.
            return -(-micros * share // _PERMILLE)

        self.input = price(tier.input_micros)
        if cached_permille is None:
            self.cached = self.input
        else:
            self.cached = price(tier.input_micros, cached_permille) if tier.cached_micros is None else tier.cached_micros
        self.image = self.input if tier.image_micros is None else price(tier.image_micros)
        # A picture is one unit of output.
        self.output_kind = "output" if tier.picture_micros is None else "pictures"
        self.output = price(tier.output_micros if tier.picture_micros is None else tier.picture_micros * PRICE_UNIT_TOKENS)
        self.reasoning = self.output if tier.reasoning_micros is None else price(tier.reasoning_micros)
        self.worst_input = max(self.input, self.cached, self.image)
        self.worst_output = max(self.output, self.reasoning)


def _rates(row: PriceRow, permille: int, cached_permille: int | None) -> tuple[_Rate, ...]:
    return tuple(_Rate(tier, permille, cached_permille) for tier in row.tiers)


def _rounded(scaled: int) -> int:
    return -(-scaled // PRICE_UNIT_TOKENS)


def _by_date(model: str, rows: list[PriceRow]) -> tuple[_Valid, ...]:
    rows = sorted(rows, key=lambda row: row.since)
    starts = [datetime.combine(row.since, time(), UTC).timestamp() for row in rows]
    for earlier, later in itertools.pairwise(rows):
        if earlier.since == later.since:
            raise ValueError(f"the price book has two prices of {model!r} from {later.since}")
    ends = [*starts[1:], float("inf")]
    return tuple(_Valid(Tariff(row, row.version), start, end) for row, start, end in zip(rows, starts, ends, strict=True))


def _currency(rows: tuple[PriceRow, ...]) -> str:
    names = {row.currency: row.model for row in rows}
    if len(names) > 1:
        told = ", ".join(f"{model!r} in {currency}" for currency, model in names.items())
        raise ValueError(
            f"a price book has one currency, but this one has {told}; `[money] shipped_prices = false` leaves out the prices that ship"
        )
    return next(iter(names), "CNY")


def _wrong(row: PriceRow) -> str | None:
    if not row.tiers:
        return "has no tiers"
    if row.cached_permille < 0 or row.batch_permille < 0:
        return "a share of a price is negative"
    if any((price or 0) < 0 for tier in row.tiers for price in msgspec.structs.astuple(tier)):
        return "a number is negative"
    *inner, last = [tier.up_to_tokens for tier in row.tiers]
    if last is not None:
        return "the last tier has an end, so a longer input would have no price; leave out its up_to_tokens"
    ends = [0, *(end or 0 for end in inner)]
    if any(earlier >= later for earlier, later in itertools.pairwise(ends)):
        return "tiers overlap: up_to_tokens must rise from tier to tier, and only the last one goes without"
    return None
