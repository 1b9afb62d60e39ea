"""This is where the box's time is told and, in a box started for testing, moved forward."""

from qwenbox.client.shapes import ClockAdvance, ClockState, Nothing
from qwenbox.gateway.shared_clock import SharedClock
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts
from qwenbox.terms.errors import ApiError, ErrorKind

_NONE = "This box runs by the machine's clock. To move its time, start it for testing: QWENBOX_TESTING=1."


async def get(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> ClockState:
    """The time of a box that was started for testing; 404 in any other."""
    return _state(await _clock(parts))


async def advance(parts: AdminParts, asked: Asked[Nothing, ClockAdvance]) -> ClockState:
    """Move time forward: windows, budgets, expiries and deadlines pass. Other workers follow within a second. 404 unless testing."""
    clock = await _clock(parts)
    await clock.advance(asked.body.advance_s)
    return _state(clock)


async def _clock(parts: AdminParts) -> SharedClock:
    if parts.test_clock is None:
        raise ApiError(ErrorKind.NOT_FOUND, _NONE)
    await parts.test_clock.refresh()
    return parts.test_clock


def _state(clock: SharedClock) -> ClockState:
    return ClockState(now_at=clock.clock.now(), offset_s=clock.clock.offset_s)


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /clock", get),
    operation("POST /clock", advance),
)
