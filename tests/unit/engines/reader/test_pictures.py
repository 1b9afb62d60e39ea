"""Pictures: read once by a process of its own, which may die or hang without taking an answer or the box with it."""

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import msgspec
import pytest

from qwenbox.clock import SystemClock
from qwenbox.engines.child import ChildConfig
from qwenbox.engines.memory import MemoryBudget
from qwenbox.engines.reader.pictures import Pictures, Reading, ReadingConfig
from qwenbox.remote import Remote, RemoteReply, RemoteRequest
from qwenbox.terms.chat import ImagePart
from qwenbox.terms.errors import ApiError, ErrorKind
from support import drawings

pytestmark = pytest.mark.anyio

QUICK = ReadingConfig(threads=2, child=ChildConfig(stop_s=0.2))


class Watched(Remote):
    """Says when the child is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[RemoteRequest] = []
        self.was_asked = anyio.Event()
        self.kills: Pictures | None = None

    async def call(self, request: RemoteRequest) -> RemoteReply:
        self.asked.append(request)
        self.was_asked.set()
        if self.kills is not None:
            kill(self.kills, signal.SIGKILL)
        return await super().call(request)


@asynccontextmanager
async def opened(config: ReadingConfig = QUICK, memory: MemoryBudget | None = None) -> AsyncGenerator[tuple[Pictures, Watched]]:
    async with Watched() as remote, Pictures(config, remote, memory or MemoryBudget(10**10), SystemClock()) as pictures:
        yield pictures, remote


def kill(pictures: Pictures, number: int) -> None:
    pid = pictures.pid
    assert pid is not None
    os.kill(pid, number)


def written(text: str) -> ImagePart:
    picture, draw = drawings.page(360, 200)
    draw.text((20, 65), text, "black", drawings.font(44))
    return drawings.part(drawings.png(picture))


def plain(shade: int) -> ImagePart:
    """Nothing to read."""
    return drawings.part(drawings.png(drawings.page(60, 60, (shade, 80, 200))[0]))


def texts(reading: Reading) -> list[str]:
    return [drawings.folded(line.text) for line in reading.lines]


async def test_read_tells_what_is_there_once_for_the_same_bytes_and_only_to_its_parent() -> None:
    memory = MemoryBudget(10**10)
    async with opened(memory=memory) as (pictures, remote):
        assert (False, 0) == (pictures.is_ready, memory.used_bytes)
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(pictures.read, written("营业时间 9:00"))
        reading = await pictures.read(written("营业时间 9:00"))

        assert (["营业时间9:00"], 360, 200, "white") == (["".join(texts(reading))], reading.width, reading.height, reading.colours[0][0])
        assert reading.is_flat is True
        assert (1, QUICK.memory_bytes) == (len(remote.asked), memory.used_bytes)

        reply = await remote.call(msgspec.structs.replace(remote.asked[0], headers={"authorization": "Bearer guess"}))
        assert 401 == reply.status
    assert 0 == memory.used_bytes


async def test_read_goes_on_with_a_new_process_when_the_first_is_killed_in_the_middle() -> None:
    async with opened() as (pictures, remote):
        await pictures.read(plain(1))
        first = pictures.pid
        kill(pictures, signal.SIGSTOP)
        remote.was_asked = anyio.Event()
        found: list[Reading] = []

        async def read() -> None:
            found.append(await pictures.read(written("second")))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await remote.was_asked.wait()
            kill(pictures, signal.SIGKILL)

        assert ["second"] == texts(found[0])
        assert pictures.pid not in (None, first)


async def test_read_fails_clearly_when_the_process_dies_of_every_picture() -> None:
    async with opened() as (pictures, remote):
        remote.kills = pictures
        with pytest.raises(ApiError) as failed:
            await pictures.read(plain(1))
        assert failed.value.kind in (ErrorKind.ENGINE_FAILED, ErrorKind.OVERLOADED)
        assert 2 == len(remote.asked)


async def test_read_ends_a_process_that_takes_too_long() -> None:
    async with opened(msgspec.structs.replace(QUICK, read_s=0.01)) as (pictures, _):
        with pytest.raises(ApiError) as late:
            await pictures.read(plain(1))
        assert (ErrorKind.TIMEOUT, False) == (late.value.kind, pictures.is_ready)


async def test_read_refuses_what_is_no_picture_and_keeps_its_process() -> None:
    async with opened() as (pictures, _):
        with pytest.raises(ApiError) as refused:
            await pictures.read(ImagePart(url="", data=b"no picture"))
        assert ErrorKind.INVALID_REQUEST is refused.value.kind
        assert pictures.is_ready


async def test_too_many_pictures_are_told_to_come_again() -> None:
    async with opened(msgspec.structs.replace(QUICK, most_waiting=1)) as (pictures, _):
        kinds: list[ErrorKind] = []

        async def read(number: int) -> None:
            try:
                await pictures.read(plain(number))
            except ApiError as error:
                kinds.append(error.kind)

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(read, number)
        assert [ErrorKind.OVERLOADED] * 2 == kinds


async def test_readings_kept_are_bounded_and_the_oldest_goes_first() -> None:
    async with opened(msgspec.structs.replace(QUICK, kept=2)) as (pictures, remote):
        for shade in (1, 2, 1, 3, 1, 2):
            await pictures.read(plain(shade))
        assert 4 == len(remote.asked)


async def test_process_makes_room_when_the_memory_is_wanted() -> None:
    memory = MemoryBudget(2 * QUICK.memory_bytes - 1)
    async with opened(memory=memory) as (first, _), opened(memory=memory) as (second, _):
        await first.read(plain(1))
        await second.read(plain(2))
        assert (False, True) == (first.is_ready, second.is_ready)
