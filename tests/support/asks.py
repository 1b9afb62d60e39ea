"""Asks for counters in one line each, and the database's half of purses."""

import itertools

import msgspec

from qwenbox.gateway.counters.base import PRICE_UNIT_TOKENS, Ask, Lease, Purse, PurseState, Used, Window, Worst

_IDS = itertools.count(1)

# One token of input and output each costs a micro-unit: costs in tests are token counts.
PRICE = PRICE_UNIT_TOKENS


def window(name: str = "acc-1/qwen", *, requests: int | None = None, tokens: int | None = None, concurrency: int | None = None) -> Window:
    return Window(id=name, requests=requests, tokens=tokens, concurrency=concurrency)


def balance(account: str = "acc-1", allowance: int = 0) -> Purse:
    return Purse(id=f"balance/{account}", allowance_micros=allowance)


def ask(*parts: Window | Purse, tokens: tuple[int, int] = (1, 1), mark: int = 0, **worst: int | bool) -> Ask:
    """tokens: input, output."""
    windows = tuple(part for part in parts if isinstance(part, Window))
    purses = tuple(part for part in parts if isinstance(part, Purse))
    prices = {"input_scaled": tokens[0] * PRICE, "output_price": PRICE} if purses else {}
    plain = Worst(input_tokens=tokens[0], output_tokens=tokens[1], **prices)
    return Ask(id=f"call-{next(_IDS)}", windows=windows, purses=purses, worst=msgspec.structs.replace(plain, **worst), mark=mark)


class Bank:
    """Purses as a database has them: amounts, versions, and how often they were read."""

    def __init__(self, **amounts: int) -> None:
        self.states = {name: PurseState(id=f"balance/{name}", amount_micros=amount, version=1) for name, amount in amounts.items()}
        self.reads: list[tuple[str, ...]] = []

    async def load(self, ids: tuple[str, ...]) -> tuple[PurseState, ...]:
        self.reads.append(ids)
        return tuple(state for state in self.states.values() if state.id in ids)

    def change(self, name: str, delta: int) -> PurseState:
        state = self.states[name]
        self.states[name] = msgspec.structs.replace(state, amount_micros=state.amount_micros + delta, version=state.version + 1)
        return self.states[name]

    def charge(self, lease: Lease, tokens: int) -> Used:
        """Book a call that used so many tokens, as the journal does."""
        names = [purse.id.removeprefix("balance/") for purse in lease.ask.purses]
        return Used(tokens=tokens, purses=tuple(self.change(name, -tokens) for name in names))
