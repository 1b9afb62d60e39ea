"""This is where the contract of the counters stands: what is in use right now, of limits and of money.

A call asks once for everything it may use at worst (`reserve`), and gives back once what it did not use (`settle`). Two keep this
contract: `memory.py` for one process, `shared.py` for several workers and nodes through Valkey. docs/limits.md tells the rules.
"""

from typing import Protocol

import msgspec

from qwenbox.terms.limits import LimitState

# Prices are micro-units per million tokens: cost in micro-units = ceil(tokens × price ÷ PRICE_UNIT_TOKENS), summed before it is rounded.
PRICE_UNIT_TOKENS = 1_000_000

# The smallest answer that is granted to a call without max_tokens, if it does not ask for less.
LEAST_OUTPUT_TOKENS = 256


class CountersConfig(msgspec.Struct, frozen=True, kw_only=True):
    """window_s: length of every window, `[limits] window_s`. wait_s: the longest wait for money, `[money] wait_s`."""

    window_s: float = 60.0
    wait_s: float = 30.0


class MoneyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[money]`. wait_s: how long a call may wait for money that only unsettled calls hold. alert_share: the part of a budget or
    balance whose use raises the alert, 0 to 1.
    shipped_prices: whether profiles/prices.toml lies beneath your own `[[price]]` rows.
    """

    wait_s: float = 30.0
    alert_share: float = 0.8
    shipped_prices: bool = True


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One sliding window and one count of open calls. id: "<account or key id>/<public model name>"; at least one limit is set."""

    id: str
    requests: int | None
    tokens: int | None
    concurrency: int | None


class Purse(msgspec.Struct, frozen=True, kw_only=True):
    """A row of PURSES that this call may not overdraw: amount + allowance - what is held >= 0, always.

    id: "balance/<account>", "spent/<account>/<YYYY-MM>", "spent/<key>/<YYYY-MM>".
    allowance_micros: 0 for a balance (its amount is what was paid in less what was used), the budget for a month's spending (its
    amount starts at 0 and falls).
    """

    id: str
    allowance_micros: int


class PurseState(msgspec.Struct, frozen=True, kw_only=True):
    """A purse as the database has it; the database counts `version` up with every change, so the newest copy is known as such."""

    id: str
    amount_micros: int
    version: int


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """The most a call may use.

    input_tokens: exact or an upper bound. output_tokens: over all choices.
    is_flexible: the caller named no max_tokens, so a smaller answer limit may be granted for the sake of the token window.
    input_scaled: money for the input, in millionths of a micro-unit (tokens × price). output_price: micro-units per million tokens, the
    dearest of text and reasoning; so the worst cost is ceil((input_scaled + output_tokens × output_price) ÷ PRICE_UNIT_TOKENS).
    choices: output tokens are granted in whole multiples of it (n answers share a grant evenly).
    """

    input_tokens: int
    output_tokens: int
    is_flexible: bool = False
    input_scaled: int = 0
    output_price: int = 0
    choices: int = 1


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One call's request to the counters. purses: only those that can refuse it.

    mark: the same when a client tries the same call again, and hardly ever for two different calls (a checksum of what was sent); so who
    comes back when it was told to is known. 0: unknown.
    """

    id: str
    windows: tuple[Window, ...]
    purses: tuple[Purse, ...]
    worst: Worst
    mark: int = 0


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """What a call holds until it is settled.

    output_tokens: how much it may answer, over all choices; <= worst.output_tokens. held_micros: in each of its purses.
    at: when it was admitted, seconds since the epoch by the counters' own clock.
    """

    ask: Ask
    output_tokens: int
    held_micros: int
    at: float
    limits: LimitState | None = None


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended. tokens: input + output, 0 for a call that never reached an engine.

    purses: the purses it changed, as the commit of its row left them; what the counters know is replaced if older.
    """

    tokens: int
    purses: tuple[PurseState, ...] = ()


class LiveWindow(msgspec.Struct, frozen=True, kw_only=True):
    """What a window holds at this moment, for people who look at it. open: calls admitted and not yet settled.

    frees_in_s: until the oldest of what it holds no longer counts; empty_in_s: until all of it does not. 0 where nothing counts.
    """

    id: str
    requests: int
    tokens: int
    open: int
    frees_in_s: float = 0.0
    empty_in_s: float = 0.0


class Counters(Protocol):
    async def reserve(self, ask: Ask) -> Lease:
        """Take one request, its worst case in tokens and money, and one open call; all or nothing.

        Money (docs/money.md): settled = amount + allowance, free = settled - held. worst cost <= free: taken. Else, with nothing held, or
        settled below the worst cost and nothing else open: as much output as `free` pays for is granted, at least one token per choice.
        The worst cost is that of the output which the rule for tokens grants. A call that costs nothing at worst needs no money.
        Else only unsettled calls stand against it: waits up to `money.wait_s` for them to settle, first come first served.
        Tokens: with is_flexible, half of what the window has left after the input (or all that is asked for, if that is less) is granted,
        at least LEAST_OUTPUT_TOKENS; without, everything asked for.

        Raises ApiError: RATE_LIMITED (requests, open calls), QUOTA_EXHAUSTED (tokens), both with the true wait in `retry_after_s`: those
        told before count, so nobody is told a moment that is promised to somebody else; INVALID_REQUEST for what no wait can admit
        (input + max_tokens above the limit itself); OUT_OF_FUNDS when settled money cannot pay the input and one token;
        OVERLOADED when unsettled calls held the money for longer than the wait, or the shared store is gone.
        """
        ...

    async def settle(self, lease: Lease, used: Used) -> None:
        """Give back what was not used. The lease is over; a second settle of it does nothing. Never raises."""
        ...

    def learn(self, states: tuple[PurseState, ...]) -> None:
        """Purses read from the database again (a top-up from elsewhere): kept if newer."""
        ...
