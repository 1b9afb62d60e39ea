"""This is where we say who calls, and who pays."""

from enum import StrEnum

import msgspec

from qwenbox.terms.limits import Limits


class Compat(StrEnum):
    """How closely the live service is followed where it and its document differ (docs/dialects.md)."""

    DOCUMENTED = "documented"
    STRICT = "strict"


class SeedPolicy(StrEnum):
    """EXACT keeps the promise of seeds on a lane of their own; PASS only hands the seed to the engine."""

    EXACT = "exact"
    PASS = "pass"  # noqa: S105 (a policy, not a password)


class CachePolicy(StrEnum):
    """Which answers of a key may come from the response cache: those that its request determines, all, none."""

    AUTO = "auto"
    ALL = "all"
    OFF = "off"


class Thrift(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done to a key's prompts before they are sent. history_tokens: older turns are left out beyond it, None never.

    collapses_whitespace: runs of blanks and of empty lines become one.
    """

    history_tokens: int | None = None
    collapses_whitespace: bool = False

    def __bool__(self) -> bool:
        return self.history_tokens is not None or self.collapses_whitespace


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated key and the account that pays, with everything the two may do.

    compat: None follows the box. models: public names this key may use, None means all.
    tier: the account's row of `[tier.NAME]`, "" the default tier. limits: the key's own, on top of the tier's.
    is_prepaid: the account can spend what its balance holds and no more; otherwise its balance just goes below zero.
    account_budget_micros, key_budget_micros: what may be spent in a calendar month of `time_zone`, None without end.
    expires_at: seconds since the epoch after which the key is refused, None never.
    cache, thrift: the key's policies.
    is_short_lived: came with a short-lived key, which cannot make further ones.
    """

    account_id: str
    key_id: str
    compat: Compat | None = None
    seeds: SeedPolicy = SeedPolicy.EXACT
    models: frozenset[str] | None = None
    tier: str = ""
    limits: Limits = Limits()
    is_prepaid: bool = False
    account_budget_micros: int | None = None
    key_budget_micros: int | None = None
    time_zone: str = "UTC"
    expires_at: float | None = None
    is_short_lived: bool = False
    cache: CachePolicy = CachePolicy.AUTO
    thrift: Thrift = Thrift()
