"""How long a run puts up with troubles, and which."""

import pytest

from qwenbox.cli.batch.running import Patience
from qwenbox.terms.errors import ApiError, ErrorKind


class Work:
    """Fails in these ways, one after the other, then works."""

    def __init__(self, *errors: ApiError) -> None:
        self.left = list(errors)

    async def __call__(self) -> str:
        if self.left:
            raise self.left.pop(0)
        return "done"


async def test_what_passes_is_tried_again_and_told() -> None:
    told: list[str] = []
    work = Work(ApiError(ErrorKind.OVERLOADED, "Full."), ApiError(ErrorKind.RATE_LIMITED, "Slow down.", retry_after_s=0.01))
    assert "done" == await Patience(told.append).hold(work)
    assert ["Full. Trying again in 0.25 s.", "Slow down. Trying again in 0.5 s.", ""] == told


async def test_a_wait_is_never_shorter_than_asked_for() -> None:
    told: list[str] = []
    await Patience(told.append).hold(Work(ApiError(ErrorKind.RATE_LIMITED, "Slow down.", retry_after_s=0.3)))
    assert "Slow down. Trying again in 0.3 s." == told[0]


@pytest.mark.parametrize("kind", [ErrorKind.UNAUTHENTICATED, ErrorKind.INVALID_REQUEST, ErrorKind.NOT_FOUND, ErrorKind.OUT_OF_FUNDS])
async def test_what_does_not_pass_is_raised_at_once(kind: ErrorKind) -> None:
    work = Work(ApiError(kind, "No."), ApiError(kind, "Never asked."))
    with pytest.raises(ApiError, match=r"No\."):
        await Patience(lambda text: None).hold(work)
    assert 1 == len(work.left)


async def test_patience_ends_with_the_last_error() -> None:
    work = Work(*(ApiError(ErrorKind.TIMEOUT, f"Late {number}.") for number in range(5)))
    with pytest.raises(ApiError, match=r"Late 1\."):
        await Patience(lambda text: None, give_up_s=0.1).hold(work)


async def test_a_success_gives_new_patience() -> None:
    patience = Patience(lambda text: None, give_up_s=0.1)
    for _ in range(2):
        assert "done" == await patience.hold(Work(ApiError(ErrorKind.INTERNAL)))
