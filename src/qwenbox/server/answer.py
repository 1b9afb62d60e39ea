"""This is where events and a reply become a response: the first byte commits the status, a hang-up ends the call."""

from contextlib import AbstractAsyncContextManager, AbstractContextManager

import msgspec

from qwenbox.dialects.base import Head, Page, Reply
from qwenbox.gateway.router import Answer
from qwenbox.server import heads
from qwenbox.server.exchange import Exchange, Pulse
from qwenbox.server.parts import Parts
from qwenbox.terms.errors import ApiError, ErrorKind


async def answer(parts: Parts, exchange: Exchange, reply: Reply, opening: AbstractAsyncContextManager[Answer]) -> None:
    """Write the whole answer. Raises ApiError only while its true status can still be sent."""
    async with parts.hangups.watch(exchange) as hangup:
        if reply.heartbeat():
            await _stream(exchange, reply, hangup.told(), opening, parts.config.heartbeat_s)
        else:
            await _whole(exchange, reply, hangup.told(), opening)


async def _whole(
    exchange: Exchange, reply: Reply, told: AbstractContextManager[None], opening: AbstractAsyncContextManager[Answer]
) -> None:
    body = b""
    try:
        with told:
            async with opening as opened:
                async for event in opened.events:
                    body += reply.event(event)
    except ApiError as error:
        if not error.cuts_connection:
            raise
        # A body that is promised and does not come: the server underneath closes the connection.
        await exchange.begin(reply.head, length_bytes=1)
        return
    await exchange.page(Page(head=heads.of_answer(reply.head, opened), body=body))


async def _stream(
    exchange: Exchange,
    reply: Reply,
    told: AbstractContextManager[None],
    opening: AbstractAsyncContextManager[Answer],
    heartbeat_s: float,
) -> None:
    async def beat() -> None:
        if not exchange.has_begun:
            await exchange.begin(_unbuffered(reply.head))
        await exchange.write(reply.heartbeat())

    with Pulse(exchange, heartbeat_s, beat) as pulse:
        try:
            with told:
                async with opening as opened:
                    async for event in opened.events:
                        data = reply.event(event)
                        if data:
                            if not exchange.has_begun:
                                await exchange.begin(_unbuffered(heads.of_answer(reply.head, opened)))
                            await exchange.write(data)
                            pulse.spoke()
        except ApiError as error:
            if not exchange.has_begun:
                raise
            await _break_off(exchange, reply, error)
            return
        except Exception as error:
            if not exchange.has_begun:
                raise
            await exchange.write(reply.error(ApiError(ErrorKind.INTERNAL)), is_last=True)
            raise ExceptionAfterStart from error
        await exchange.write(b"", is_last=True)


async def _break_off(exchange: Exchange, reply: Reply, error: ApiError) -> None:
    """The frame that ends an answer already begun. Without one the server underneath closes the connection."""
    if not error.cuts_connection:
        await exchange.write(reply.error(error))
        await exchange.write(b"", is_last=True)


class ExceptionAfterStart(Exception):
    """An unexpected failure whose error frame has been sent already; only its log line is left to write."""


def _unbuffered(head: Head) -> Head:
    # nginx and its kin otherwise collect a stream before they pass it on.
    return msgspec.structs.replace(head, headers={**head.headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
