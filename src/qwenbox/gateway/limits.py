"""This is where tiers become windows: what an account or a key may use of a model. docs/limits.md tells the rules."""

from collections.abc import Mapping

import msgspec

from qwenbox.gateway.counters.base import Window
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.limits import Limits

# Windows are kept ready for this many pairs of key and model; past that all are made anew.
_CACHE_LIMIT = 10_000


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[limits]`. window_s: length of every window. default_tier: of accounts that have none of their own.

    approximate: several workers may run without a shared store; each then counts for itself.
    """

    window_s: float = 60.0
    default_tier: str = "unlimited"
    approximate: bool = False

    def __post_init__(self) -> None:
        if not self.window_s > 0:
            raise ValueError("window_s must be above 0")


class Tier(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[tier.NAME]`: limits per account and model, and the account's weight when calls wait for a busy engine.

    model: other limits for single models; what a row does not name is as in the tier.
    """

    weight: int = 1
    model: dict[str, Limits] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight < 1:
            raise ValueError("weight must be 1 or more")

    def of(self, model: str) -> Limits:
        """model: its public name."""
        own = self.model.get(model)
        if own is None:
            return self
        return Limits(
            rpm=self.rpm if own.rpm is None else own.rpm,
            tpm=self.tpm if own.tpm is None else own.tpm,
            concurrency=self.concurrency if own.concurrency is None else own.concurrency,
        )


class Tiers:
    """Which windows a call must fit in. tiers must have `config.default_tier`; the configuration is checked for it when it is read.

    named: all tiers by their names. default_name: of the one for accounts that name none.
    """

    def __init__(self, config: LimitsConfig, tiers: Mapping[str, Tier]) -> None:
        self.window_s = config.window_s
        self.named = dict(tiers)
        self.default_name = config.default_tier
        self._tiers = {**tiers, "": tiers[config.default_tier]}
        self._free = frozenset(name for name, tier in self._tiers.items() if not tier and not any(tier.model.values()))
        self._ready: dict[tuple[str, str], tuple[Caller, tuple[Window, ...]]] = {}

    def windows(self, caller: Caller, model: str) -> tuple[Window, ...]:
        """The account's window by its tier and the key's by its own limits, each only if it limits anything.

        model: the public name, no alias, so that a model's names share its windows. Raises ApiError(FORBIDDEN): no such tier.
        """
        own = caller.limits
        if caller.tier in self._free and own.rpm is None and own.tpm is None and own.concurrency is None:
            return ()
        key = (caller.key_id, model)
        ready = self._ready.get(key)
        # The caller is compared because a key's limits and an account's tier may change.
        if ready is not None and (ready[0] is caller or ready[0] == caller):
            return ready[1]
        windows = self._made(caller, model)
        if len(self._ready) >= _CACHE_LIMIT:
            self._ready.clear()
        self._ready[key] = (caller, windows)
        return windows

    def limits(self, tier: str, model: str) -> Limits:
        """What the tier of that name allows of a model; one that is not configured limits nothing: its calls are refused."""
        found = self._tiers.get(tier)
        return found.of(model) if found is not None else Limits()

    def weight(self, caller: Caller) -> int:
        """The account's share of a busy engine, against the other accounts' weights. Raises ApiError(FORBIDDEN): no such tier."""
        return self._tier(caller).weight

    def _made(self, caller: Caller, model: str) -> tuple[Window, ...]:
        pairs = ((caller.account_id, self._tier(caller).of(model)), (caller.key_id, caller.limits))
        return tuple(
            Window(id=f"{owner}/{model}", requests=limits.rpm, tokens=limits.tpm, concurrency=limits.concurrency)
            for owner, limits in pairs
            if limits.rpm is not None or limits.tpm is not None or limits.concurrency is not None
        )

    def _tier(self, caller: Caller) -> Tier:
        tier = self._tiers.get(caller.tier)
        if tier is None:
            # Unlimited would be a leak, any other tier a guess.
            text = f"The account's tier {caller.tier!r} is not configured here. Ask whoever runs this box for a table [tier.{caller.tier}]."
            raise ApiError(ErrorKind.FORBIDDEN, text)
        return tier
