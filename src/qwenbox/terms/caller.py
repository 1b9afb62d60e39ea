"""This is where we say who calls, and who pays."""

from enum import StrEnum

import msgspec


class Compat(StrEnum):
    """How closely the live service is followed where it and its document differ (docs/dialects.md)."""

    DOCUMENTED = "documented"
    STRICT = "strict"


class SeedPolicy(StrEnum):
    """EXACT keeps the promise of seeds on a lane of their own; PASS only hands the seed to the engine."""

    EXACT = "exact"
    PASS = "pass"  # noqa: S105 (a policy, not a password)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated key and the account that pays. compat: None follows the box."""

    account_id: str
    key_id: str
    compat: Compat | None = None
    seeds: SeedPolicy = SeedPolicy.EXACT
    models: frozenset[str] | None = None
