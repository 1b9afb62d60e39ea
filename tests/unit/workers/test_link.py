"""The link between a worker and its parent: frames whole however they are cut, and nothing held after its end."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from qwenbox.gateway.scheduler import Claim, Need
from qwenbox.terms.engine import Capacity
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.workers.link import (
    FROM_WORKER,
    MAX_FRAME_BYTES,
    AskTurn,
    Back,
    Begin,
    FromWorker,
    Granted,
    Link,
    Refused,
    Serving,
    Wire,
)

pytestmark = pytest.mark.anyio

ASK = AskTurn(queue="echo", capacity=Capacity(slots=1), claim=Claim(account_id="a", need=Need(slots=1, kv_tokens=7)))


class Parent:
    """The other end, answering by hand."""

    def __init__(self, wire: Wire[FromWorker]) -> None:
        self.wire = wire
        self.heard: list[FromWorker] = []
        self._came = anyio.Event()
        wire.listen(self._hear)

    def _hear(self, message: FromWorker) -> None:
        self.heard.append(message)
        self._came.set()
        self._came = anyio.Event()

    async def until(self, count: int) -> list[FromWorker]:
        with anyio.fail_after(60):
            while len(self.heard) < count:
                await self._came.wait()
        return self.heard


@asynccontextmanager
async def linked() -> AsyncGenerator[tuple[Link, Parent]]:
    ours, theirs = socket.socketpair()
    link = await Link.open(theirs)
    parent = Parent(await Wire[FromWorker].open(ours, FROM_WORKER))
    try:
        yield link, parent
    finally:
        link.close()
        parent.wire.close()
        await link.lost()
        await parent.wire.over.wait()


async def test_begin_is_heard_also_when_it_came_before_anybody_listened() -> None:
    async with linked() as (link, parent):
        parent.wire.send(Begin(index=2, count=3, config=b"{}"))
        begin = await link.begin()
        assert begin is not None
        assert (2, 3, b"{}") == (begin.index, begin.count, begin.config)


async def test_begin_is_none_when_the_parent_is_gone() -> None:
    async with linked() as (link, parent):
        parent.wire.close()
        with anyio.fail_after(60):
            assert await link.begin() is None


async def test_hold_gives_back_what_it_was_given() -> None:
    async with linked() as (link, parent), anyio.create_task_group() as tasks:

        async def call() -> None:
            async with link.hold(ASK, Granted):
                pass

        tasks.start_soon(call)
        (asked,) = await parent.until(1)
        parent.wire.send(Granted(id=asked.id))
        assert [asked, Back(id=asked.id)] == await parent.until(2)
        assert msgspec.structs.replace(ASK, id=asked.id) == asked


async def test_hold_raises_the_parents_refusal() -> None:
    async with linked() as (link, parent), anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(ApiError) as refused:
                async with link.hold(ASK, Granted):
                    pass
            assert (ErrorKind.OVERLOADED, "full", 2.5) == (refused.value.kind, refused.value.message, refused.value.retry_after_s)

        tasks.start_soon(call)
        (asked,) = await parent.until(1)
        parent.wire.send(Refused(id=asked.id, kind=ErrorKind.OVERLOADED, message="full", param=None, retry_after_s=2.5))


@pytest.mark.parametrize("is_granted", [False, True])
async def test_hold_is_taken_back_when_the_caller_hangs_up(is_granted: bool) -> None:
    """Also when the grant arrives in the very moment of the hang-up."""
    async with linked() as (link, parent):

        async def call() -> None:
            async with link.hold(ASK, Granted):
                await anyio.sleep_forever()

        calling = asyncio.get_running_loop().create_task(call())
        (asked,) = await parent.until(1)
        if is_granted:
            parent.wire.send(Granted(id=asked.id))
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert [asked, Back(id=asked.id)] == await parent.until(2)


async def test_hold_raises_overloaded_when_the_parent_dies() -> None:
    async with linked() as (link, parent), anyio.create_task_group() as tasks:

        async def call() -> None:
            with pytest.raises(ApiError) as refused:
                async with link.hold(ASK, Granted):
                    pass
            assert ErrorKind.OVERLOADED is refused.value.kind

        tasks.start_soon(call)
        await parent.until(1)
        parent.wire.close()
        await link.lost()
        tasks.start_soon(call)


MESSAGES = some.lists(some.sampled_from([Serving(), Back(id=2**40), msgspec.structs.replace(ASK, id=9)]), max_size=8)


@given(messages=MESSAGES, cuts=some.lists(some.integers(1, 40), max_size=60))
def test_frames_are_whole_however_they_are_cut(messages: list[FromWorker], cuts: list[int]) -> None:
    data = b"".join(len(frame).to_bytes(4, "big") + frame for frame in map(msgspec.msgpack.encode, messages))
    heard: list[FromWorker] = []
    wire = Wire[FromWorker](FROM_WORKER)
    wire.listen(heard.append)
    for size in cuts:
        wire.data_received(data[:size])
        data = data[size:]
    wire.data_received(data)
    assert messages == heard


@given(data=some.binary(max_size=200))
def test_garbage_is_never_heard_as_a_message_of_another_kind(data: bytes) -> None:
    heard: list[object] = []
    wire = Wire[FromWorker](FROM_WORKER)
    wire.listen(heard.append)
    wire.data_received(data)
    assert all(isinstance(message, FromWorker) for message in heard)


@pytest.mark.parametrize("data", [b"\0\0\0\1\xc1", (MAX_FRAME_BYTES).to_bytes(4, "big")], ids=["no message", "too long"])
async def test_link_is_closed_when_what_comes_makes_no_sense(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    wire = await Wire[FromWorker].open(ours, FROM_WORKER)
    with theirs:
        theirs.sendall(data)
        with anyio.fail_after(60):
            await wire.over.wait()
