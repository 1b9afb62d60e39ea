"""This is where a call's three timeouts after the connection run out: first token, between tokens, total. One timer for all of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import TypeVar

from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Started
from qwenbox.terms.wishes import NO_PATIENCE, Patience

T = TypeVar("T")

CONNECT = "connect_s"
FIRST = "first_token_s"
BETWEEN = "between_tokens_s"
TOTAL = "total_s"

_TEXTS = {
    FIRST: "Request timed out: no first token within {seconds:g} s (first_token_s).",
    BETWEEN: "Response timeout: no further token came within {seconds:g} s (between_tokens_s).",
    TOTAL: "Request timed out: the answer was not complete within {seconds:g} s (total_s).",
}


def watch(own: Patience, model: Patience) -> "Watch | None":
    """own: the caller's wishes, which win over the model's. None when nobody set anything, so that nothing is paid."""
    return None if own is NO_PATIENCE and model == NO_PATIENCE else Watch(own, model)


class Watch:
    """One call's deadlines. What the caller set himself counts from the first attempt and is final; what the model's entry sets, but for
    the total, counts from each attempt, and another one may follow."""

    __slots__ = (
        "_between_s",
        "_deadline",
        "_first_at",
        "_has_fired",
        "_is_over",
        "_loop",
        "_model",
        "_own",
        "_task",
        "_timer",
        "_timer_at",
        "_total_at",
    )

    def __init__(self, own: Patience, model: Patience) -> None:
        self._own = own
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._between_s: float | None = None
        self._first_at = inf
        self._total_at = inf
        self._deadline = inf
        self._has_fired = False
        self._is_over = False
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    @property
    def connect_s(self) -> float | None:
        return self._own.connect_s or self._model.connect_s

    @property
    def left_s(self) -> float:
        """Until the total is over; endless before the first attempt."""
        return self._total_at - self._loop.time()

    def sent(self) -> None:
        """An attempt begins now."""
        now, own, model = self._loop.time(), self._own, self._model
        if self._total_at == inf:
            self._total_at = now + (own.total_s or model.total_s or inf)
        if own.first_token_s is None:
            self._first_at = now + (model.first_token_s or inf)
        elif self._first_at == inf:
            self._first_at = now + own.first_token_s
        self._between_s = None

    def heard(self, event: ChatEvent) -> None:
        """Something came; the first token is a delta, not the beginning of an answer."""
        if self._between_s is None and not isinstance(event, Started):
            self._first_at = inf
            self._between_s = self._own.between_tokens_s or self._model.between_tokens_s

    async def hold(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives. Raises ApiError(TIMEOUT) when a deadline passes before; no other time is counted than that spent here, but
        for the total."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("patience is for tasks")
        if self._is_over:
            self._deadline = self._total_at
            raise self._failure()
        deadline = min(self._first_at, self._total_at)
        if self._between_s is not None:
            deadline = min(deadline, self._loop.time() + self._between_s)
        self._set(deadline)
        others = task.cancelling()
        self._task = task
        try:
            return await work()
        except asyncio.CancelledError:
            # As in asyncio.timeout: somebody else may have cancelled the task in the same moment, and then it must end.
            if self._has_fired and task.uncancel() <= others:
                self._has_fired = False
                raise self._failure() from None
            self._has_fired = False
            raise
        finally:
            self._task = None
            if self._has_fired:
                self._has_fired = False
                task.uncancel()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # The timer is looked at only when it fires, so that a token costs none.

    def _set(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._look)
            self._timer_at = deadline

    def _look(self) -> None:
        self._timer, self._timer_at = None, inf
        if self._task is None:  # the caller is being written to, which is not for us to stop
            self._is_over = self._total_at <= self._loop.time()
            return
        if self._deadline > self._loop.time():
            self._set(self._deadline)
        else:
            self._has_fired = True
            self._task.cancel()

    def _failure(self) -> ApiError:
        if self._total_at <= self._deadline:
            return self._error(TOTAL, self._own.total_s, self._model.total_s)
        if self._first_at <= self._deadline:
            return self._error(FIRST, self._own.first_token_s, self._model.first_token_s)
        return self._error(BETWEEN, self._own.between_tokens_s, self._model.between_tokens_s)

    def _error(self, name: str, own_s: float | None, model_s: float | None) -> ApiError:
        error = ApiError(ErrorKind.TIMEOUT, _TEXTS[name].format(seconds=own_s or model_s), param=name)
        # The caller named the moment at which he wants to know: there is no other attempt after it.
        error.is_final = name == TOTAL or own_s is not None
        return error

    def judged(self, error: ApiError) -> ApiError:
        """An engine's error, final if it is the caller's own patience that ran out in it."""
        if error.kind is ErrorKind.TIMEOUT and error.param == CONNECT and self._own.connect_s is not None:
            error.is_final = True
        return error


class Patient:
    """Events as they come while somebody is willing to wait, with the one already taken put back in front. broke: hears of a failure."""

    __slots__ = ("_broke", "_first", "_rest", "_watch")

    def __init__(self, first: ChatEvent, rest: AsyncIterator[ChatEvent], watch: Watch, broke: Callable[[ApiError], None]) -> None:
        self._first: ChatEvent | None = first
        self._rest = rest
        self._watch = watch
        self._broke = broke
        watch.heard(first)

    def __aiter__(self) -> AsyncIterator[ChatEvent]:
        return self

    async def __anext__(self) -> ChatEvent:
        first, self._first = self._first, None
        if first is not None:
            return first
        try:
            event = await self._watch.hold(self._rest.__anext__)
        except ApiError as error:
            self._broke(error)
            raise
        self._watch.heard(event)
        return event
