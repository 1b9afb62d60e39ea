"""This is where the instant upstream lives: an OpenAI-compatible server that thinks for no time at all, in a process of its own.

A call is answered in one write, whole or as SSE, as "stream" asks. With `pace=MS;chunks=N;` in its text a streamed call gets N
chunks, one every MS milliseconds, whose content is the moment of sending (CLOCK_MONOTONIC, nanoseconds): whoever hears it
knows the delay.
"""

import argparse
import asyncio
import re
import time
from typing import cast

import uvloop

PACE = re.compile(rb"pace=(\d+);chunks=(\d+);")
HEAD = b'{"id":"chatcmpl-instant","created":1700000000,"model":"instant",'
TEXT = b"The quick brown fox jumps over the lazy dog and goes home."
USAGE = b'"usage":{"prompt_tokens":24,"completion_tokens":14,"total_tokens":38}'


def _response(body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (status, kind, len(body), body)


def _chunk(delta: bytes, reason: bytes = b"null") -> bytes:
    return b'data: %b"object":"chat.completion.chunk","choices":[{"index":0,"delta":%b,"finish_reason":%b}]}\n\n' % (HEAD, delta, reason)


FIRST = _chunk(b'{"role":"assistant","content":""}')
LAST = _chunk(b"{}", b'"stop"') + b'data: %b"object":"chat.completion.chunk","choices":[],%b}\n\n' % (HEAD, USAGE) + b"data: [DONE]\n\n"
WHOLE = _response(
    b'%b"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}],%b}'
    % (HEAD, TEXT, USAGE)
)
STREAM = _response(FIRST + _chunk(b'{"content":"%b"}' % TEXT) + LAST, b"text/event-stream")
PACED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
# What gateways ask a worker about itself before they send it calls.
PAGES = {
    b"/v1/models": _response(b'{"object":"list","data":[{"id":"instant","object":"model","created":1700000000,"owned_by":"bench"}]}'),
    b"/models": _response(b'{"object":"list","data":[{"id":"instant","object":"model","created":1700000000,"owned_by":"bench"}]}'),
    b"/health": _response(b"{}"),
    b"/get_model_info": _response(b'{"model_path":"instant","is_generation":true}'),
    b"/get_server_info": _response(b'{"model_path":"instant","served_model_name":"instant"}'),
    b"/server_info": _response(b'{"model_path":"instant","served_model_name":"instant"}'),
    b"/model_info": _response(b'{"model_path":"instant","is_generation":true}'),
}
MISSING = _response(b"{}", status=b"404 Not Found")


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Instant(asyncio.Protocol):
    """One connection of the upstream."""

    def __init__(self) -> None:
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop keeps the interface without the class

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (split := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:split].lower()
            place = head.find(b"content-length:")
            size = int(head[place + 15 :].partition(b"\r\n")[0]) if place >= 0 else 0
            end = split + 4 + size
            if len(self._buffer) < end:
                if b"expect: 100-continue" in head:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            body, self._buffer = self._buffer[split + 4 : end], self._buffer[end:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get "):
            path = head.split(b" ", 2)[1].partition(b"?")[0]
            self._transport.write(PAGES.get(path, MISSING))
        elif b'"stream":true' not in body and b'"stream": true' not in body:
            self._transport.write(WHOLE)
        elif (pace := PACE.search(body)) is None:
            self._transport.write(STREAM)
        else:
            self._transport.write(PACED + _framed(FIRST))
            self._loop = asyncio.get_running_loop()
            self._pace_s, self._left = int(pace[1]) / 1000, int(pace[2])
            self._at = self._loop.time()
            self._tick()

    def _tick(self) -> None:
        if self._left == 0:
            self._transport.write(_framed(LAST) + b"0\r\n\r\n")
            return
        self._left -= 1
        # From the last moment wanted, not from now: the pace must not drift with the load.
        self._at += self._pace_s
        self._timer = self._loop.call_at(self._at, self._send)

    def _send(self) -> None:
        self._transport.write(_framed(_chunk(b'{"content":"%d"}' % time.monotonic_ns())))
        self._tick()


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", port, backlog=8192)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    uvloop.install()
    asyncio.run(_serve(port))


if __name__ == "__main__":
    main()
