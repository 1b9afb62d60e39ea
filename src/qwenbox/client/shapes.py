"""This is where the bodies of the admin API have their shapes, for the one who serves it and those who call it.

Here is what all of them are made of, and the bodies about accounts, keys, limits, prices, engines, the cache and the clock; usage.py,
series.py, catalog.py, jobs.py, … beside it have the others.

Money is integer millionths of the currency (`_micros`), times are seconds since the epoch (`_at`). Lists come in pages: `next_cursor`
is handed back as `cursor` for the next one, null at the end. What comes in is refused when it has a field that is not named here.
"""

from typing import Annotated, Generic, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from qwenbox.terms.caller import CachePolicy, Compat, SeedPolicy

MOST_PAGE_SIZE = 1_000

# Characters of a password.
LEAST_PASSWORD = 8

# A billion units; also well within what a double holds exactly, since some clients read JSON numbers as such.
MOST_MICROS = 10**15

# Control characters make logs and tables lie, and a database may refuse them.
_PLAIN = "^(?![\\s\\S]*[\\x00-\\x1f\\x7f])"

# Python's `$` also matches before a last line break.
_END = "$(?!\\n)"

Reference: TypeAlias = Annotated[str, Meta(max_length=100, pattern=f"^[A-Za-z0-9._:-]*{_END}")]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200, pattern=_PLAIN)]
Note: TypeAlias = Annotated[str, Meta(max_length=500, pattern=_PLAIN)]
Text: TypeAlias = Annotated[str, Meta(max_length=200, pattern=_PLAIN)]
Day: TypeAlias = Annotated[str, Meta(pattern=f"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}{_END}")]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Budget: TypeAlias = Annotated[int, Meta(ge=0, le=MOST_MICROS)]
At: TypeAlias = Annotated[float, Meta(ge=0, le=253_402_300_799)]
Cursor: TypeAlias = Annotated[str, Meta(max_length=1_000, pattern=f"^[A-Za-z0-9_=-]*{_END}")]
PageSize: TypeAlias = Annotated[int, Meta(ge=1, le=MOST_PAGE_SIZE)]
RoleName: TypeAlias = Literal["admin", "member"]


class Sent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client says."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the box answers; a client ignores fields it does not know, so that an older one reads a newer box."""


T = TypeVar("T")


class Page(Told, Generic[T], frozen=True, kw_only=True):
    items: tuple[T, ...]
    next_cursor: str | None = None


class Nothing(Sent, frozen=True, kw_only=True):
    """No query, or no body."""


class Paging(Sent, frozen=True, kw_only=True):
    limit: PageSize = 100
    cursor: Cursor = ""


class Problem(Told, frozen=True, kw_only=True):
    """code: one of a closed list, for programs. param: the field at fault."""

    code: str
    message: str
    param: str | None = None


class Refusal(Told, frozen=True, kw_only=True):
    error: Problem


class Account(Told, frozen=True, kw_only=True):
    """tier "" follows the box's default. budget_micros: per calendar month of the account's time zone, null without end."""

    id: str
    name: str
    created_at: float
    role: RoleName
    tier: str
    time_zone: str
    is_prepaid: bool
    budget_micros: int | None = None


class NewAccount(Sent, frozen=True, kw_only=True):
    name: Name
    role: RoleName = "member"
    tier: Text = ""
    time_zone: Text = "UTC"
    is_prepaid: bool = False
    budget_micros: Budget | None = None


class AccountChange(Sent, frozen=True, kw_only=True):
    """What is not named stays as it is."""

    name: Name | UnsetType = UNSET
    role: RoleName | UnsetType = UNSET
    tier: Text | UnsetType = UNSET
    time_zone: Text | UnsetType = UNSET
    is_prepaid: bool | UnsetType = UNSET
    budget_micros: Budget | UnsetType | None = UNSET


class NewPassword(Sent, frozen=True, kw_only=True):
    """With it, and the role admin, the account's person gets into the console and this API.

    It ends the account's sessions in the console, but for the one whose token is `session`.
    """

    password: Annotated[str, Meta(min_length=LEAST_PASSWORD, max_length=1_024)]
    session: Annotated[str, Meta(max_length=200)] = ""

    def __repr__(self) -> str:
        return "NewPassword(…)"


class TopUp(Sent, frozen=True, kw_only=True):
    """reference: a payment's own id; the same one again books nothing, so a request may be repeated safely."""

    amount_micros: Annotated[int, Meta(ge=1, le=MOST_MICROS)]
    note: Note = ""
    reference: Reference = ""


class Adjustment(Sent, frozen=True, kw_only=True):
    """A correction by hand, up or down; the note says why. reference: as in TopUp."""

    amount_micros: Annotated[int, Meta(ge=-MOST_MICROS, le=MOST_MICROS)]
    note: Annotated[str, Meta(min_length=1, max_length=500, pattern=_PLAIN)]
    reference: Reference = ""


class Balance(Told, frozen=True, kw_only=True):
    """What is left of an account's payments; below zero for one that is not prepaid and has used more."""

    account_id: str
    balance_micros: int


class Entry(Told, frozen=True, kw_only=True):
    """One side of a booking, as the ledger keeps it."""

    transaction_id: str
    ledger_account: str
    amount_micros: int
    currency: str
    kind: str
    at: float
    note: str


class Key(Told, frozen=True, kw_only=True):
    """prefix: its first characters. models: null means all. rpm, tpm, concurrency: its own, on top of the account's tier.

    cache: which answers may come from the response cache: "auto" those that the request determines, "all", "off". history_tokens: older
    turns of a chat are left out beyond it, null never. collapses_whitespace: runs of blanks and of empty lines in prompts become one.
    """

    id: str
    account_id: str
    name: str
    prefix: str
    created_at: float
    compat: Compat | None = None
    seeds: SeedPolicy = SeedPolicy.EXACT
    revoked_at: float | None = None
    models: tuple[str, ...] | None = None
    expires_at: float | None = None
    budget_micros: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    cache: CachePolicy = CachePolicy.AUTO
    history_tokens: int | None = None
    collapses_whitespace: bool = False


class IssuedKey(Key, frozen=True, kw_only=True):
    """The secret is told here and never again."""

    secret: str


class NewKey(Sent, frozen=True, kw_only=True):
    """account: an id or name."""

    account: Name
    name: Name
    compat: Compat | None = None
    seeds: SeedPolicy = SeedPolicy.EXACT
    models: Annotated[tuple[Name, ...], Meta(max_length=200)] | None = None
    expires_at: At | None = None
    budget_micros: Budget | None = None
    rpm: Count | None = None
    tpm: Count | None = None
    concurrency: Count | None = None
    cache: CachePolicy = CachePolicy.AUTO
    history_tokens: Count | None = None
    collapses_whitespace: bool = False


class KeyChange(Sent, frozen=True, kw_only=True):
    """What is not named stays as it is."""

    name: Name | UnsetType = UNSET
    compat: Compat | UnsetType | None = UNSET
    seeds: SeedPolicy | UnsetType = UNSET
    models: Annotated[tuple[Name, ...], Meta(max_length=200)] | UnsetType | None = UNSET
    expires_at: At | UnsetType | None = UNSET
    budget_micros: Budget | UnsetType | None = UNSET
    rpm: Count | UnsetType | None = UNSET
    tpm: Count | UnsetType | None = UNSET
    concurrency: Count | UnsetType | None = UNSET
    cache: CachePolicy | UnsetType = UNSET
    history_tokens: Count | UnsetType | None = UNSET
    collapses_whitespace: bool | UnsetType = UNSET


class KeysAsked(Paging, frozen=True, kw_only=True):
    """account: only keys of the account of this id or name."""

    account: Text = ""


class WindowState(Told, frozen=True, kw_only=True):
    """What one account or key uses of one model right now. owner_id: of either; account, key: their names, key "" for an account's own.

    window_s: how long an admission counts. *_limit: null where nothing is limited. frees_in_s: until the oldest admission no longer
    counts; empty_in_s: until none does.
    """

    owner_id: str
    model: str
    requests: int
    tokens: int
    open_calls: int
    account: str = ""
    key: str = ""
    window_s: float = 60.0
    requests_limit: int | None = None
    tokens_limit: int | None = None
    concurrency_limit: int | None = None
    frees_in_s: float = 0.0
    empty_in_s: float = 0.0


class TierLimits(Told, frozen=True, kw_only=True):
    """A `[tier.NAME]`: what an account in it may use of each model, null where nothing is limited; single models may differ.

    is_default: the one of accounts that name none. weight: its share of a busy engine, beside other accounts'.
    """

    name: str
    is_default: bool
    weight: int
    rpm: int | None
    tpm: int | None
    concurrency: int | None


class PriceTier(Told, frozen=True, kw_only=True):
    """Micro-units per million tokens, for requests whose input is at most `up_to_tokens` long; null: however long."""

    up_to_tokens: int | None
    input_micros: int
    output_micros: int
    cached_micros: int | None
    image_micros: int | None
    reasoning_micros: int | None
    picture_micros: int | None = None


class PriceRow(Told, frozen=True, kw_only=True):
    """since: a date; the price holds from 00:00 UTC of it. is_active: it applies now. The permilles are shares of the price."""

    model: str
    since: str
    currency: str
    version: str
    is_active: bool
    cached_permille: int
    batch_permille: int
    tiers: tuple[PriceTier, ...]


class PriceBook(Told, frozen=True, kw_only=True):
    currency: str
    rows: tuple[PriceRow, ...]


class Deployment(Told, frozen=True, kw_only=True):
    """Where a model runs. state: ready, idle, starting, missing or down; detail says what to do about it."""

    name: str
    kind: str
    weights: str
    state: str
    detail: str


class ModelHealth(Told, frozen=True, kw_only=True):
    model: str
    deployments: tuple[Deployment, ...]


class LedgerCheck(Told, frozen=True, kw_only=True):
    """problems: what does not add up, in words."""

    is_good: bool
    problems: tuple[str, ...]


class CacheState(Told, frozen=True, kw_only=True):
    """The response cache. place: "database" or "valkey". scope: who shares answers, "account" or "box". oldest_at: null when empty.

    calls, hits: of all time, as far as statements go.
    """

    is_enabled: bool
    place: str
    scope: str
    ttl_s: float
    entries: int
    bytes: int
    most_bytes: int
    oldest_at: float | None
    calls: int
    hits: int


class CachePurge(Sent, frozen=True, kw_only=True):
    """Whose answers; "" for all."""

    account: Reference = ""
    model: Text = ""


class CachePurged(Told, frozen=True, kw_only=True):
    """entries: how many were forgotten."""

    entries: int


class ClockState(Told, frozen=True, kw_only=True):
    """now_at: the box's time. offset_s: how far it is ahead of the machine's."""

    now_at: float
    offset_s: float


class ClockAdvance(Sent, frozen=True, kw_only=True):
    advance_s: Annotated[float, Meta(gt=0, le=3_162_240_000)]
