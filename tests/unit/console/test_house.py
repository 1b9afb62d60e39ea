"""What open pages share: ten of them cost the box what one does."""

import anyio
import pytest

from qwenbox.console.house import Polled
from qwenbox.terms.errors import ApiError, ErrorKind

pytestmark = pytest.mark.anyio


class Box:
    """Answers with how often it was asked, until it is down."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_down = False

    async def ask(self) -> int:
        self.asked += 1
        await anyio.lowlevel.checkpoint()
        if self.is_down:
            raise ApiError(ErrorKind.OVERLOADED, "down")
        return self.asked


async def test_answer_is_asked_for_once_by_all_who_want_it_at_a_time():
    box = Box()
    polled, found = Polled(box.ask, 3_600.0), list[int]()

    async def look() -> None:
        found.append(await polled.get())

    async with anyio.create_task_group() as pages:
        for _ in range(10):
            pages.start_soon(look)
    assert ([1] * 10, 1) == (found, box.asked)


async def test_answer_is_asked_for_anew_when_it_is_old_or_forgotten():
    box = Box()
    old, kept = Polled(box.ask, 0.0), Polled(box.ask, 3_600.0)
    assert [1, 2] == [await old.get(), await old.get()]
    assert [3, 3] == [await kept.get(), await kept.get()]
    kept.forget()
    assert 4 == await kept.get()


async def test_failure_is_told_and_not_kept():
    box = Box()
    box.is_down = True
    polled = Polled(box.ask, 3_600.0)
    with pytest.raises(ApiError):
        await polled.get()
    box.is_down = False
    assert 2 == await polled.get()
