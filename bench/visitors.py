"""This is where people who look at the console are played, without a browser: each fetches its page and keeps NiceGUI's socket alive.

python -m bench.visitors LINK PATH… — LINK is a one-time link of the box; says {"ready": …} once every page is connected, and how many
updates came when its standard input is closed.
"""

import asyncio
import json
import re
import sys
import uuid

import aiohttp
import msgspec
import socketio

_CLIENT = re.compile(r"'client_id': '([0-9a-f-]+)'")
# As nicegui.js does it.
_ACK_EVERY_S = 3.0


class Seen(msgspec.Struct):
    """updates: messages from the pages. bytes: roughly what they carried."""

    updates: int = 0
    bytes: int = 0


class Visitor:
    """One open page."""

    def __init__(self, session: aiohttp.ClientSession, address: str, path: str, seen: Seen) -> None:
        self._session = session
        self._address = address
        self._path = path
        self._seen = seen
        self._socket = socketio.AsyncClient(reconnection=False)
        self._next = 0

    async def come(self) -> None:
        """Fetch the page and connect; raises RuntimeError where that is no page of the console."""
        async with self._session.get(f"{self._address}{self._path}") as answer:
            text = await answer.text()
            found = _CLIENT.search(text)
            if answer.status != 200 or found is None:
                raise RuntimeError(f"{self._path} answered {answer.status}")
        self._client = found[1]
        self._socket.on("*", self._told)
        query = f"client_id={self._client}&next_message_id=0&implicit_handshake=true&document_id={uuid.uuid4()}&tab_id={uuid.uuid4()}"
        cookies = "; ".join(f"{cookie.key}={cookie.value}" for cookie in self._session.cookie_jar)
        headers = {"Cookie": cookies, "Origin": self._address}
        where = f"{self._address}?{query}"
        await self._socket.connect(where, headers=headers, transports=["websocket"], socketio_path="/_nicegui_ws/socket.io")

    async def stay(self) -> None:
        """Until cancelled, or until the console hangs up."""
        while self._socket.connected:
            await asyncio.sleep(_ACK_EVERY_S)
            await self._socket.emit("ack", {"client_id": self._client, "next_message_id": self._next})
        raise RuntimeError(f"{self._path}: the console hung up")

    async def _told(self, event: str, data: object = None) -> None:
        self._seen.updates += 1
        self._seen.bytes += len(str(data))
        if isinstance(data, dict) and isinstance(number := data.get("_id"), int):
            self._next = max(self._next, number + 1)

    async def leave(self) -> None:
        await self._socket.disconnect()


async def main(link: str, paths: list[str]) -> None:
    seen = Seen()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(link) as answer:
            address = str(answer.url.origin())
        visitors = [Visitor(session, address, path, seen) for path in paths]
        for visitor in visitors:
            await visitor.come()
        staying = [asyncio.create_task(visitor.stay()) for visitor in visitors]
        print(json.dumps({"ready": len(visitors)}), flush=True)
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        done, _ = await asyncio.wait([ended, *staying], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {ended}:
            task.result()
        for task in staying:
            task.cancel()
        for visitor in visitors:
            await visitor.leave()
    print(msgspec.json.encode(seen).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
