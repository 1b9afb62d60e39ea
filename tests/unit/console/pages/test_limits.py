"""What rows of limits say, without a browser."""

import pytest

from qwenbox.client.shapes import WindowState
from qwenbox.console.pages.limits import level, when, whose
from qwenbox.console.texts import Texts

T = Texts("en")


def window(**changed: object) -> WindowState:
    known = {"owner_id": "acc-1", "model": "m", "requests": 2, "tokens": 30, "open_calls": 0, "account": "alice"}
    return WindowState(**{**known, **changed})  # type: ignore[arg-type]


def test_owner_is_an_account_or_a_key_of_one() -> None:
    assert "Account alice" == whose(T, window())
    assert "Account acc-1" == whose(T, window(account=""))
    assert "Key ci of alice" == whose(T, window(key="ci"))


@pytest.mark.parametrize(
    ("frees_in_s", "empty_in_s", "said"),
    [(5.2, 50.0, "first room in 5 s, all in 50 s"), (9.6, 10.0, "free again in 10 s"), (0.2, 0.3, "free again in 1 s")],
)
def test_row_says_when_there_is_room_again(frees_in_s: float, empty_in_s: float, said: str) -> None:
    assert said == when(T, window(frees_in_s=frees_in_s, empty_in_s=empty_in_s))


def test_row_without_requests_in_its_window_has_calls_that_run() -> None:
    assert "calls are running" == when(T, window(requests=0, open_calls=1))


def test_colour_tells_how_much_is_left() -> None:
    assert ["go", "go", "warn", "warn", "bad", "bad"] == [level(share) for share in (0, 0.79, 0.8, 0.99, 1.0, 1.4)]
