"""One call's time, cut into the parts that a person asks for."""

import pytest

from qwenbox.client.usage import Hop
from qwenbox.console.receipt import phases


def timeline(**moments: float) -> tuple[Hop, ...]:
    return tuple(Hop(name=name, at_s=at) for name, at in moments.items())


def test_every_moment_of_a_call_is_in_one_part() -> None:
    hops = timeline(received=0, entered=0.1, counted=0.2, admitted=0.3, queued=0.31, turn=1.3, first=1.4, first_token=1.5, last=4.0)
    found = phases(hops)
    assert ["read, counted, let in", "waiting for its turn", "until the first token", "until the last token"] == [
        name for name, _, _ in found
    ]
    assert [0.3, 1.0, 0.2, 2.5] == [pytest.approx(length_s) for _, length_s, _ in found]


@pytest.mark.parametrize(
    ("hops", "names"),
    [
        (
            timeline(received=0, cache=0.1, entered=0.1, admitted=0.2, first_token=0.3, last=0.4),
            ["read", "until the first", "until the last"],
        ),
        (timeline(received=0, entered=0.1, admitted=0.2, queued=0.2, last=5.0), ["read", "until its end"]),
        (timeline(received=0, last=1.0), ["until its end"]),
    ],
)
def test_what_a_call_never_came_to_is_passed_over(hops: tuple[Hop, ...], names: list[str]) -> None:
    found = phases(hops)
    assert len(names) == len(found)
    assert all(told.startswith(name) for name, (told, _, _) in zip(names, found, strict=True))
    assert hops[-1].at_s == pytest.approx(sum(length_s for _, length_s, _ in found))


def test_a_call_without_moments_has_no_parts() -> None:
    assert [] == phases(())
