"""This is where all metrics of a process at a moment are one value, which another process can add to its own."""

from collections.abc import Iterable, Sequence

import msgspec

from qwenbox.telemetry.names import Family


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """A counter or gauge. labels: values in the family's order."""

    name: str
    labels: tuple[str, ...]
    value: float


class Spread(msgspec.Struct, frozen=True, array_like=True):
    """A histogram. counts: of each bucket alone, the endless one last; sum_s: of all that was observed."""

    name: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    sum_s: float


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    samples: tuple[Sample, ...] = ()
    spreads: tuple[Spread, ...] = ()


def sample(family: Family, value: float, *labels: str) -> Sample:
    return Sample(family.name, labels, float(value))


def add(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The sum: every metric is made so that the processes' values add up to the box's."""
    values: dict[tuple[str, tuple[str, ...]], float] = {}
    spreads: dict[tuple[str, tuple[str, ...]], tuple[Sequence[int], float]] = {}
    for snapshot in snapshots:
        for one in snapshot.samples:
            key = (one.name, one.labels)
            values[key] = values.get(key, 0.0) + one.value
        for other in snapshot.spreads:
            key = (other.name, other.labels)
            known = spreads.get(key)
            spreads[key] = (
                (other.counts, other.sum_s)
                if known is None
                else ([a + b for a, b in zip(known[0], other.counts, strict=True)], known[1] + other.sum_s)
            )
    return Snapshot(
        tuple(Sample(name, labels, value) for (name, labels), value in values.items()),
        tuple(Spread(name, labels, tuple(counts), sum_s) for (name, labels), (counts, sum_s) in spreads.items()),
    )


def lasting(snapshot: Snapshot, gauges: frozenset[str]) -> Snapshot:
    """What stays of a process that has died: what it counted, not how it was. gauges: names of metrics that tell how it was."""
    return Snapshot(tuple(one for one in snapshot.samples if one.name not in gauges), snapshot.spreads)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Snapshot)


def pack(snapshot: Snapshot) -> bytes:
    return _ENCODER.encode(snapshot)


def unpack(data: bytes) -> Snapshot:
    """What `pack` made. Raises msgspec.DecodeError."""
    return _DECODER.decode(data)
