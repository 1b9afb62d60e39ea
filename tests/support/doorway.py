"""A door that boxes of tests stand behind one after the other: clients know one address, and what passes can be lost on the way."""

import asyncio
import threading
from collections.abc import Callable
from typing import Self, TypeAlias

# Told "POST /v1/batches" and whether it is about to go in ("asked") or its answer about to come out ("answered").
# None lets it pass; bytes are sent to the client instead, and the connection is cut after them.
Watch: TypeAlias = Callable[[str, str], bytes | None]

_METHODS = (b"GET ", b"POST ", b"DELETE ")


class Doorway:
    """port: where it leads now, 0 to nowhere. seen: every request line so far."""

    def __init__(self) -> None:
        self.port = 0
        self.watch: Watch = lambda line, when: None
        self.seen: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop).result()
        self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        inner: asyncio.StreamWriter | None = None
        try:
            back, inner = await asyncio.open_connection("127.0.0.1", self.port)
            passage = _Passage(self, writer, inner)
            done, rest = await asyncio.wait(
                {asyncio.ensure_future(passage.go_in(reader)), asyncio.ensure_future(passage.come_out(back))},
                return_when=asyncio.FIRST_COMPLETED,
            )
            for each in rest:
                each.cancel()
            await asyncio.gather(*done, *rest, return_exceptions=True)
        except OSError:
            pass
        finally:
            for each in (writer, inner):
                if each is not None:
                    each.close()
            self._tasks.discard(task)


class _Passage:
    """One connection."""

    def __init__(self, door: Doorway, outer: asyncio.StreamWriter, inner: asyncio.StreamWriter) -> None:
        self._door = door
        self._outer = outer
        self._inner = inner
        self._line = ""
        self._is_new = False

    async def go_in(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65_536):
            if data.startswith(_METHODS):
                self._line, self._is_new = data.split(b" HTTP/1.1", 1)[0].decode(), True
                self._door.seen.append(self._line)
                if await self._is_cut("asked"):
                    return
            self._inner.write(data)
            await self._inner.drain()

    async def come_out(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65_536):
            if self._is_new:
                self._is_new = False
                if await self._is_cut("answered"):
                    return
            self._outer.write(data)
            await self._outer.drain()

    async def _is_cut(self, when: str) -> bool:
        instead = self._door.watch(self._line, when)
        if instead:
            self._outer.write(instead)
            await self._outer.drain()
        return instead is not None
