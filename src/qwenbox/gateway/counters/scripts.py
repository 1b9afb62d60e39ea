"""This is where the scripts of the shared counters are kept, and what they are told and answer: MessagePack both ways."""

from collections.abc import Sequence
from importlib.resources import files
from typing import TypeAlias

import msgspec

from qwenbox.gateway.counters.base import Ask, PurseState, Window
from qwenbox.gateway.counters.window import least_tokens
from qwenbox.terms.limits import LimitState
from qwenbox.valkey.store import Script

MICROS = 1_000_000  # microseconds in a second


def _script(name: str) -> Script:
    folder = files("qwenbox.gateway.counters")
    return Script("\n".join((folder / f"{part}.lua").read_text("utf-8") for part in ("common", name)))


RESERVE, SETTLE, JOIN, RESTORE, DEAD, LIVE = (_script(name) for name in ("reserve", "settle", "join", "restore", "dead", "live"))
SCRIPTS = (RESERVE, SETTLE, JOIN, RESTORE, DEAD, LIVE)


class Picture(msgspec.Struct, array_like=True, gc=False):
    """A window as it is: what counts in it, calls open, and when it will be as good as empty."""

    requests: int
    tokens: int
    open: int
    reset_us: int


class Admitted(msgspec.Struct, array_like=True, tag=0):
    """frees: what is left of each purse, allowance included."""

    at_us: int
    output_tokens: int
    held_micros: int
    pictures: list[Picture]
    frees: list[int]


class Refused(msgspec.Struct, array_like=True, tag=1):
    is_tokens: int
    wait_us: int
    pictures: list[Picture]


class Broke(msgspec.Struct, array_like=True, tag=2):
    purse: int


class Wait(msgspec.Struct, array_like=True, tag=3):
    """first: the id of the call that stands first in this purse's line, of whatever process."""

    purse: int
    first: str


class Unknown(msgspec.Struct, array_like=True, tag=4):
    purses: tuple[str, ...]


class Warming(msgspec.Struct, array_like=True, tag=5):
    wait_us: int


class Stranger(msgspec.Struct, array_like=True, tag=6):
    """The store does not know this process (any more): it must join again."""


Answer: TypeAlias = Admitted | Refused | Broke | Wait | Unknown | Warming | Stranger


class Joined(msgspec.Struct, array_like=True):
    """past: who tells the calls of the last window, one of PAST_…. place: which of the living `owners` this one is, from 0.

    at_us, heard_us: the store's clock now, and until when everybody is known to have heard the store.
    """

    is_known: int
    past: int
    place: int
    owners: int
    at_us: int
    heard_us: int


PAST_IS_OURS, PAST_IS_ANOTHERS = 1, 2


class Gone(msgspec.Struct, array_like=True):
    """An owner that died. is_past: before the store was started. heard_us: until when it heard the store.

    calls: ids and purses of those that were open.
    """

    name: str
    is_past: int
    heard_us: int
    calls: list[tuple[str, tuple[str, ...]]]


pack = msgspec.msgpack.Encoder().encode
read_answer = msgspec.msgpack.Decoder(Answer).decode
read_joined = msgspec.msgpack.Decoder(Joined).decode
read_unknown = msgspec.msgpack.Decoder(tuple[str, ...]).decode
read_gone = msgspec.msgpack.Decoder(list[Gone]).decode
read_live = msgspec.msgpack.Decoder(list[tuple[str, int, int, int, float, float]]).decode


def reserve_words(owner: str, ask: Ask, times: tuple[int, int], states: Sequence[PurseState], has_waited: bool) -> bytes:
    """times: the test clock's shift and the windows' length, microseconds. has_waited: it may stand in a line for money."""
    worst = ask.worst
    return pack(
        (
            owner,
            ask.id,
            *times,
            [(window.id, _limit(window.requests), _limit(window.tokens), _limit(window.concurrency)) for window in ask.windows],
            [(purse.id, purse.allowance_micros) for purse in ask.purses],
            (
                worst.input_tokens,
                worst.output_tokens,
                least_tokens(worst),
                1 if worst.is_flexible else 0,
                worst.input_scaled,
                worst.output_price,
                worst.choices,
            ),
            state_words(states),
            1 if has_waited else 0,
            ask.mark,
        )
    )


def state_words(states: Sequence[PurseState]) -> list[tuple[str, int, int]]:
    return [(state.id, state.amount_micros, state.version) for state in states]


def limit_state(windows: tuple[Window, ...], pictures: list[Picture]) -> LimitState | None:
    """What is left where least is left, of requests and of tokens; None if these windows limit neither."""
    requests: tuple[int, int, int] | None = None
    tokens: tuple[int, int, int] | None = None
    for window, picture in zip(windows, pictures, strict=True):
        if window.requests is not None:
            left = window.requests - picture.requests
            if requests is None or left < requests[0]:
                requests = (left, window.requests, picture.reset_us)
        if window.tokens is not None:
            left = window.tokens - picture.tokens
            if tokens is None or left < tokens[0]:
                tokens = (left, window.tokens, picture.reset_us)
    if requests is None and tokens is None:
        return None
    return LimitState(
        requests_limit=requests[1] if requests else None,
        requests_left=max(0, requests[0]) if requests else None,
        requests_reset_s=requests[2] / MICROS if requests else 0.0,
        tokens_limit=tokens[1] if tokens else None,
        tokens_left=max(0, tokens[0]) if tokens else None,
        tokens_reset_s=tokens[2] / MICROS if tokens else 0.0,
    )


def _limit(value: int | None) -> int:
    return -1 if value is None else value
