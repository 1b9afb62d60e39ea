"""The pictures of a request become bytes, each once, within the limits of a request."""

import base64
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from qwenbox.clock import SystemClock
from qwenbox.db import METADATA, open_database
from qwenbox.media import refusals
from qwenbox.media.config import MediaConfig
from qwenbox.media.download import Downloads
from qwenbox.media.media import Media
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Part, Role, TextPart, VideoPart
from qwenbox.terms.errors import ApiError
from qwenbox.terms.secret import Secret
from qwenbox.terms.upload import Permit
from qwenbox.uploads import Uploads, UploadsConfig
from support import outside
from support.pictures import drawn

pytestmark = pytest.mark.anyio

CALLER = Caller(account_id="acc", key_id="key")
RED, BLUE = drawn(colour="red"), drawn("JPEG", 80, 40, colour="blue")
HERE = MediaConfig(allow=(outside.OUTSIDE,))


def inline(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def request(*parts: Part) -> ChatRequest:
    return ChatRequest(
        model="m",
        messages=(
            Message(role=Role.SYSTEM, content=(TextPart(text="look"),)),
            Message(role=Role.USER, content=(*parts, TextPart(text="?"))),
        ),
    )


@asynccontextmanager
async def opened(folder: Path, config: MediaConfig = HERE, **more: Any):
    async with open_database("sqlite+aiosqlite://") as database:
        await database.change(METADATA.create_all)
        uploads = Uploads(database, folder, UploadsConfig(), SystemClock(), Secret("s"))
        yield Media(config, Downloads(config, **more), uploads), uploads


async def store(uploads: Uploads, data: bytes, name: str = "a.png", permit: Permit | None = None) -> str:
    permit = permit or uploads.permit(CALLER.account_id)
    async with uploads.receive(permit) as incoming:
        await incoming.write(data)
        await uploads.keep(incoming, permit, f"{permit.folder}/{name}")
    return f"oss://{permit.folder}/{name}"


async def refusal(media: Media, asked: ChatRequest) -> str:
    with pytest.raises(ApiError) as refused:
        await media.load(asked, CALLER, resolves_uploads=True)
    return refused.value.message


async def test_parts_keep_their_places_and_wishes_when_their_bytes_come(tmp_path: Path) -> None:
    async with opened(tmp_path) as (media, uploads):
        stored = await store(uploads, BLUE)
        with outside.serve(answers={"/a": outside.file(RED)}) as server:
            url = f"{server.url}/a"
            film = VideoPart(frames=tuple(ImagePart(url=place) for place in (url, inline(BLUE), url, stored)), fps=1.5)
            asked = request(ImagePart(url=url, max_pixels=100_000), TextPart(text="and"), film)
            loaded = await media.load(asked, CALLER, resolves_uploads=True)

    assert server.connections == 1
    image, text, moving, question = loaded.messages[1].content
    assert (text, question, loaded.messages[0]) == (TextPart(text="and"), TextPart(text="?"), asked.messages[0])
    assert isinstance(image, ImagePart)
    assert (image.data, image.media_type, image.width, image.height, image.max_pixels) == (RED, "image/png", 64, 48, 100_000)
    assert isinstance(moving, VideoPart)
    assert [frame.data for frame in moving.frames] == [RED, BLUE, RED, BLUE]
    assert (moving.fps, {frame.media_type for frame in moving.frames}) == (1.5, {"image/png", "image/jpeg"})


async def test_picture_is_the_same_wherever_it_came_from(tmp_path: Path) -> None:
    async with opened(tmp_path) as (media, uploads):
        stored = await store(uploads, RED)
        with outside.serve(answers={"/a": outside.file(RED)}) as server:
            asked = [request(ImagePart(url=url)) for url in (f"{server.url}/a", inline(RED), stored)]
            first, *others = [await media.load(one, CALLER, resolves_uploads=True) for one in asked]

    assert [first, first] == others
    assert "red" not in repr(first)
    assert len(repr(first)) < 1_000


async def test_files_of_one_name_are_told_apart_by_their_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as (media, uploads):
        permit = uploads.permit(CALLER.account_id)
        stored = [await store(uploads, data, permit=permit) for data in (RED, BLUE)]
        loaded = await media.load(request(*[ImagePart(url=stored[0])] * 3), CALLER, resolves_uploads=True)

    assert stored[0] == stored[1]
    assert [image.data for image in loaded.pictures] == [RED, BLUE, BLUE]


async def test_upload_is_refused_when_the_caller_did_not_ask_for_it_or_is_another(tmp_path: Path) -> None:
    async with opened(tmp_path) as (media, uploads):
        asked = request(ImagePart(url=await store(uploads, RED)))
        other = msgspec.structs.replace(CALLER, account_id="other")
        for caller, resolves in ((CALLER, False), (other, True)):
            with pytest.raises(ApiError, match="does not appear to be valid"):
                await media.load(asked, caller, resolves_uploads=resolves)
        assert (await media.load(asked, CALLER, resolves_uploads=True)).messages


async def test_upload_is_refused_when_it_is_no_picture_or_too_large(tmp_path: Path) -> None:
    async with opened(tmp_path, MediaConfig(item_bytes=1_000)) as (media, uploads):
        assert await refusal(media, request(ImagePart(url=await store(uploads, b"PK\x03\x04 secret")))) == refusals.NOT_DECODED
        assert await refusal(media, request(ImagePart(url=await store(uploads, drawn("BMP"))))) == refusals.TOO_LARGE


@pytest.mark.parametrize(("count", "is_taken"), [(0, False), (3, False), (4, True), (512, True), (513, False)])
async def test_film_has_four_to_512_frames(tmp_path: Path, count: int, is_taken: bool) -> None:
    async with opened(tmp_path) as (media, _):
        asked = request(VideoPart(frames=(ImagePart(url=inline(RED)),) * count))
        if is_taken:
            assert len(list((await media.load(asked, CALLER, resolves_uploads=False)).pictures)) == count
        else:
            assert await refusal(media, asked) == refusals.WRONG_FRAMES


async def test_request_is_refused_when_its_pictures_are_too_large_together(tmp_path: Path) -> None:
    pictures = [drawn("PNG", 100 + number, 100) for number in range(4)]
    config = MediaConfig(request_bytes=sum(map(len, pictures)) - 1)
    async with opened(tmp_path, config) as (media, _):
        assert await refusal(media, request(*(ImagePart(url=inline(data)) for data in pictures))) == refusals.TOO_LARGE
        assert await media.load(request(*(ImagePart(url=inline(data)) for data in pictures[1:])), CALLER, resolves_uploads=False)


async def test_request_is_refused_when_it_has_too_many_pictures(tmp_path: Path) -> None:
    async with opened(tmp_path, MediaConfig(request_pictures=3)) as (media, _):
        images = [ImagePart(url=inline(RED))] * 4
        assert "may have 3 pictures" in await refusal(media, request(*images))
        assert await media.load(request(*images[1:]), CALLER, resolves_uploads=False)


async def test_one_account_waits_behind_a_few_pictures_of_another_only(tmp_path: Path) -> None:
    """However many the other has sent."""
    ended: list[str] = []

    async def load(media: Media, account_id: str, count: int) -> None:
        caller = msgspec.structs.replace(CALLER, account_id=account_id)
        pictures = [ImagePart(url=inline(drawn(width=100 + number, height=100))) for number in range(count)]
        await media.load(request(*pictures), caller, resolves_uploads=False)
        ended.append(account_id)

    async with opened(tmp_path, MediaConfig(account_fetches=2)) as (media, _), anyio.create_task_group() as tasks:
        tasks.start_soon(load, media, "many", 100)
        tasks.start_soon(load, media, "one", 1)

    assert ended == ["one", "many"]


async def test_request_is_given_up_when_its_pictures_take_too_long_together(tmp_path: Path) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        await anyio.sleep_forever()
        return []

    async with opened(tmp_path, MediaConfig(request_s=0.1), resolve=resolve) as (media, _):
        assert await refusal(media, request(ImagePart(url="http://slow.example/a.png"))) == refusals.TIMED_OUT


async def test_one_account_fetches_no_more_than_its_share_at_a_time(tmp_path: Path) -> None:

    running, most = 0, 0
    go_on = anyio.Event()

    async def resolve(host: str, port: int) -> Sequence[str]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 2:
            # The others have had their chance to begin, too.
            await anyio.wait_all_tasks_blocked()
            go_on.set()
        await go_on.wait()
        running -= 1
        return ["10.0.0.1"]

    async with opened(tmp_path, MediaConfig(account_fetches=2), resolve=resolve) as (media, _):
        assert await refusal(media, request(*(ImagePart(url=f"http://h{n}.example/") for n in range(10)))) == refusals.NOT_FETCHED

    assert most == 2
