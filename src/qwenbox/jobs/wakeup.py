"""This is where somebody who waits for work is woken."""

import anyio


class Wakeup:
    """Calls that come while nobody waits are remembered as one. For one event loop, one waiter."""

    def __init__(self) -> None:
        self._event: anyio.Event | None = None
        self._is_called = False

    def call(self) -> None:
        self._is_called = True
        if self._event is not None:
            self._event.set()

    async def wait(self, most_s: float) -> bool:
        """Until called, at most so long; whether it was called."""
        if not self._is_called:
            self._event = anyio.Event()
            with anyio.move_on_after(most_s):
                await self._event.wait()
            self._event = None
        was_called, self._is_called = self._is_called, False
        return was_called
