"""This is where the moments of a call's way are kept in its row, in a few bytes, and read back for whoever asks where its time went."""

import msgspec

from qwenbox.terms.timeline import Timeline

# In the order they are written; one that is added goes to the end, since older rows have fewer.
_NAMES = ("cache", "entered", "counted", "admitted", "queued", "turn", "first", "last")

# What is told by the row itself.
_SPOKE = "first_token"


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """name: received, cache (it was asked), entered (on the way to an engine, or to a kept answer), counted (its prompt), admitted, queued,
    turn (it has a place on an engine), first (the engine's first event), first_token (or another first result), last (nothing follows).

    at_s: after the request's head was read. What a call never came to is not there.
    """

    name: str
    at_s: float


def write(timeline: Timeline, last_s: float) -> str:
    """For the row of a call that is over at `last_s` of time.monotonic. Costs one microsecond.

    The row's own writing comes after it: /metrics and traces tell how long that took.
    """
    zero = timeline.begun_s or timeline.entered_s
    if not zero:
        return ""
    return "%d,%d,%d,%d,%d,%d,%d,%d" % (  # noqa: UP031 (an f-string takes half as long again)
        (timeline.looked_s - zero) * 1e6,
        (timeline.entered_s - zero) * 1e6,
        (timeline.counted_s - zero) * 1e6,
        (timeline.admitted_s - zero) * 1e6,
        (timeline.queued_s - zero) * 1e6,
        (timeline.turn_s - zero) * 1e6,
        (timeline.first_s - zero) * 1e6,
        (last_s - zero) * 1e6,
    )


def read(hops: str, ttft_s: float | None) -> tuple[Hop, ...]:
    """What `write` wrote, in the order in which it happened; () for a row without. ttft_s: of the same row, from admission on."""
    if not hops:
        return ()
    # Below 0: the call never came there.
    found = {name: int(micros) / 1e6 for name, micros in zip(_NAMES, hops.split(","), strict=False) if int(micros) >= 0}
    if ttft_s is not None:
        # Admission is noted a moment before its time to first token begins; the call cannot have spoken after its end.
        found[_SPOKE] = min(found.get("admitted", found["last"]) + ttft_s, found["last"])
    order = ("received", *_NAMES[:-1], _SPOKE, _NAMES[-1])
    return tuple(
        Hop(name=name, at_s=at) for name, at in sorted({"received": 0.0, **found}.items(), key=lambda one: (one[1], order.index(one[0])))
    )
