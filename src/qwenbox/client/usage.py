"""This is where usage and cost have their shapes in the admin API: statements, single calls, their receipts."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from qwenbox.client.shapes import At, Day, Note, Paging, Reference, Sent, Text, Told

Group: TypeAlias = Literal["day", "month", "model", "key", "account", "deployment", "dialect", "lane", "outcome"]
OutcomeName: TypeAlias = Literal["completed", "hung_up", "failed"]


class UsageAsked(Sent, frozen=True, kw_only=True):
    """since, until: days of each call's own account and time zone, both included. account: an id or name; nothing means all."""

    by: Group = "day"
    since: Day | None = None
    until: Day | None = None
    account: Text = ""


class UsageSum(Told, frozen=True, kw_only=True):
    """All calls of one group (a day, a model's name, a key's id, …) in one currency.

    cacheable_tokens: input of the calls whose engine tells how much of it it had read before; cached_tokens is part of it.
    reusable_tokens: input that earlier prompts had begun with, of the calls where it was looked for ([prefixes]).
    ttft_micros: over the ttft_calls that had a first token; like duration_micros in millionths of a second.
    """

    group: str
    currency: str
    calls: int
    cache_hits: int
    input_tokens: int
    cached_tokens: int
    cacheable_tokens: int
    output_tokens: int
    reasoning_tokens: int
    image_tokens: int
    reusable_tokens: int
    cost_micros: int
    duration_micros: int
    ttft_micros: int
    ttft_calls: int


class Statement(Told, frozen=True, kw_only=True):
    """rows in the order of their groups."""

    by: Group
    rows: tuple[UsageSum, ...]


class CallsAsked(Paging, frozen=True, kw_only=True):
    """Newest first; every filter that is named must hold. account, key: ids or names. since, until: as in UsageAsked.

    since_at <= admitted < until_at. least_s: how long they took at least. request_id: whole, or a piece of it.
    A page that is filtered may have room left and a `next_cursor` all the same: it looks at 20,000 calls at most.
    """

    account: Text = ""
    key: Text = ""
    model: Text = ""
    outcome: OutcomeName | None = None
    dialect: Text = ""
    since: Day | None = None
    until: Day | None = None
    since_at: At | None = None
    until_at: At | None = None
    least_s: Annotated[float, Meta(ge=0)] | None = None
    request_id: Reference = ""


class Call(Told, frozen=True, kw_only=True):
    """One call that is over. cost_micros: by the prices of `price_version`, rounded up once.

    is_counted: the tokens were counted here, since the engine told none. notes: what was done to the call, by name.
    reusable_tokens: input that an earlier prompt had begun with, null where it was not looked for; cached_tokens: what the engine reused.
    """

    id: str
    account_id: str
    key_id: str
    model: str
    deployment: str
    dialect: str
    lane: str
    day: str
    arrived_at: float
    admitted_at: float
    ttft_s: float | None
    duration_s: float
    input_tokens: int
    cached_tokens: int | None
    output_tokens: int
    reasoning_tokens: int | None
    image_tokens: int | None
    reusable_tokens: int | None
    is_counted: bool
    is_cache_hit: bool
    outcome: OutcomeName
    finish_reason: str | None
    error_kind: str | None
    cost_micros: int
    currency: str
    price_version: str
    notes: dict[str, object] = {}


class ReceiptLine(Told, frozen=True, kw_only=True):
    """One token class. price_micros: per million tokens, with every discount in it."""

    kind: str
    tokens: int
    price_micros: int
    amount_micros: int


class Hop(Told, frozen=True, kw_only=True):
    """A moment of a call's way, `at_s` seconds after its request was read. What it never came to is not told.

    name: received, cache (it was asked), entered (on its way to an engine, or to a kept answer), counted (its prompt), admitted, queued,
    turn (it has a place on an engine), first (the engine's first event), first_token (or another first result), last (nothing follows).
    """

    name: str
    at_s: float


class Receipt(Told, frozen=True, kw_only=True):
    """What one call used and cost, class by class; the lines sum to its cost. refunded_micros: given back since.

    timeline: where its time went, in order; empty for a call of an older qwenbox.
    """

    call: Call
    lines: tuple[ReceiptLine, ...]
    refunded_micros: int
    timeline: tuple[Hop, ...] = ()


class Refund(Sent, frozen=True, kw_only=True):
    note: Note = ""
