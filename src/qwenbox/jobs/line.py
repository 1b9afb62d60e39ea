"""This is where one line of a batch becomes a call: through the gateway like any other, in the lane `batch`, without HTTP."""

import random
import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NoReturn, TypeAlias

import anyio
import anyio.lowlevel
import msgspec

from qwenbox.clock import Clock
from qwenbox.dialects.base import Dialect, Page, Parsed, WireRequest
from qwenbox.dialects.openai import batches as wire
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.router import Answer
from qwenbox.telemetry.logs import REQUEST_ID
from qwenbox.terms.call import Call, Lane, R
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.job import Batch

Opening: TypeAlias = Callable[[], AbstractAsyncContextManager[Answer]]

# What may be better next time without end, and what is tried a few times only.
_PASSING = frozenset({ErrorKind.OVERLOADED, ErrorKind.RATE_LIMITED, ErrorKind.CONFLICT})
_DOUBTFUL = frozenset({ErrorKind.ENGINE_FAILED, ErrorKind.TIMEOUT})
_DOUBTFUL_TRIES = 4
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0

# Calls of batches have ids of their own making: the same line has the same id whoever runs it, so that its booking counts once.
_NAMESPACE = uuid.UUID("6f1c6a0e-6c1d-5b0a-9d55-71656e626f78")


class Attempts(msgspec.Struct, frozen=True, kw_only=True):
    """Where a line goes on. number: of the next attempt, from 0. is_booked: that attempt is in the books already, and stays the line's."""

    number: int = 0
    is_booked: bool = False


FIRST = Attempts()


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What a line came to."""

    call_id: str
    is_failed: bool
    body: bytes


class Stopped(Exception):
    """The batch runs no further lines; this one has no end yet."""


def call_id(batch_id: str, line: int, attempt: int) -> str:
    """The request id under which an attempt at a line is in the books; always the same."""
    return str(uuid.uuid5(_NAMESPACE, f"{batch_id}/{line}/{attempt}"))


class LineRunner:
    """caller: who pays, by the key's id, as it is now; raises ApiError(UNAUTHENTICATED) once it is revoked."""

    def __init__(self, gateway: Gateway, dialect: Dialect, caller: Callable[[str], Caller], clock: Clock) -> None:
        self._gateway = gateway
        self._dialect = dialect
        self.caller = caller
        self._clock = clock

    async def run(self, batch: Batch, line: int, data: bytes, begun: Attempts, stopped: anyio.Event) -> Ended:
        """Until it has an answer or a final error. Raises Stopped, between attempts, once `stopped` is set."""
        read = wire.line(data, batch.endpoint)
        if not isinstance(read, wire.Line):
            raise ValueError("the input file has changed since it was checked")
        attempt, tries = begun.number, 0
        while True:
            id = call_id(batch.id, line, attempt)
            REQUEST_ID.set(id)
            try:
                body = await self._ask(batch, id, read)
                return Ended(call_id=id, is_failed=False, body=wire.done(read.custom_id, id, body))
            except ApiError as error:
                tries += 1
                if not _is_passing(error, tries):
                    return Ended(call_id=id, is_failed=True, body=wire.failed(read.custom_id, id, self._page(error, id)))
                wait_s = _wait_s(error, tries)
            with anyio.move_on_after(wait_s):
                await stopped.wait()
            if stopped.is_set():
                raise Stopped
            # The failed attempt is in the books under its id, at no cost; one that cost something is never asked again under another.
            attempt += 0 if begun.is_booked else 1

    def broken(self, batch: Batch, line: int, data: bytes, begun: Attempts) -> Ended:
        """The end of a line at which something of ours failed."""
        id = call_id(batch.id, line, begun.number)
        read = wire.line(data, batch.endpoint)
        custom_id = read.custom_id if isinstance(read, wire.Line) else ""
        return Ended(call_id=id, is_failed=True, body=wire.failed(custom_id, id, self._page(ApiError(ErrorKind.INTERNAL), id)))

    async def _ask(self, batch: Batch, id: str, line: wire.Line) -> bytes:
        now = self._clock.now()
        if batch.endpoint == wire.TEST:
            return wire.tried(id, now)
        request = WireRequest(id=id, method="POST", path=batch.endpoint, received_at=now, body=line.body)
        caller = self.caller(batch.key_id)
        compat = self._gateway.compat(caller)
        if batch.endpoint == wire.COMPLETIONS:
            completion = (self._dialect.parse_completion or _missing())(request, compat)
            return await self._fold(completion, lambda: self._gateway.complete(self._call(request, caller, completion)))
        if batch.endpoint == wire.EMBEDDINGS:
            embedding = (self._dialect.parse_embedding or _missing())(request, compat)
            return await self._fold(embedding, lambda: self._gateway.embed(self._call(request, caller, embedding)))
        chat = (self._dialect.parse_chat or _missing())(request, compat)
        return await self._fold(chat, lambda: self._gateway.chat(self._call(request, caller, chat)))

    def _call(self, request: WireRequest, caller: Caller, parsed: Parsed[R]) -> Call[R]:
        return Call(
            id=request.id,
            caller=caller,
            request=parsed.request,
            dialect=self._dialect.name,
            arrived_at=request.received_at,
            lane=Lane.BATCH,
        )

    async def _fold(self, parsed: Parsed[R], opening: Opening) -> bytes:
        if parsed.reply.heartbeat():
            raise wire.refuse_stream()
        body = b""
        try:
            async with opening() as answer:
                try:
                    async for event in answer.events:
                        body += parsed.reply.event(event)
                except anyio.get_cancelled_exc_class() as error:
                    # The box stops. A caller that hangs up pays for what was made by then; a line that will be run again must not.
                    raise _Interrupted from error
        except _Interrupted:
            await anyio.lowlevel.checkpoint()  # raises the cancellation that was held back
            raise
        return body

    def _page(self, error: ApiError, id: str) -> Page:
        return self._dialect.error_page(error, id)


class _Interrupted(Exception):
    pass


def _missing() -> NoReturn:
    raise ApiError(ErrorKind.INTERNAL, "the dialect of batches has no such parser")


def _is_passing(error: ApiError, tries: int) -> bool:
    return error.kind in _PASSING or (error.kind in _DOUBTFUL and tries < _DOUBTFUL_TRIES)


def _wait_s(error: ApiError, tries: int) -> float:
    """Twice as long each time, spread, and never less than we were told."""
    grown_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(tries - 1, 10))
    return max(error.retry_after_s or 0.0, grown_s * random.uniform(0.5, 1.0))
