"""Files uploaded for a call belong to an account, for a time, within what an account may keep."""

from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest

from qwenbox.clock import SystemClock, TestClock
from qwenbox.db import METADATA, open_database
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret
from qwenbox.terms.upload import Permit
from qwenbox.uploads import Uploads, UploadsConfig

pytestmark = pytest.mark.anyio

SMALL = UploadsConfig(limit_bytes=100, account_files=3, account_bytes=150)


class World:
    def __init__(self, uploads: Uploads, clock: TestClock, folder: Path) -> None:
        self.uploads = uploads
        self.clock = clock
        self.folder = folder

    async def store(self, data: bytes, *, account_id: str = "acc", permit: Permit | None = None, name: str = "a.png") -> str:
        permit = permit or self.uploads.permit(account_id)
        async with self.uploads.receive(permit) as incoming:
            await incoming.write(data)
            await self.uploads.keep(incoming, permit, f"{permit.folder}/{name}")
        return f"oss://{permit.folder}/{name}"

    def read(self, url: str, number: int = 0, account_id: str = "acc", most_bytes: int = 1_000):
        return self.uploads.read(account_id, url, number, most_bytes)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncGenerator[World]:
    clock = TestClock(SystemClock())
    async with open_database("sqlite+aiosqlite://") as database:
        await database.change(METADATA.create_all)
        yield World(Uploads(database, tmp_path / "uploads", SMALL, clock, Secret("s")), clock, tmp_path / "uploads")


async def test_file_is_its_accounts_own(world: World) -> None:
    url = await world.store(b"one")

    assert await world.read(url) == b"one"
    assert await world.read(url, account_id="other") is None
    assert await world.read(f"{url}x") is None
    assert await world.read("oss://\ud800") is None


async def test_files_of_one_name_are_read_in_their_order(world: World) -> None:
    permit = world.uploads.permit("acc")
    (url,) = {await world.store(data, permit=permit) for data in (b"one", b"two")}

    assert [await world.read(url, number) for number in range(3)] == [b"one", b"two", b"two"]


async def test_file_is_read_up_to_a_byte_past_the_limit(world: World) -> None:
    url = await world.store(bytes(100))

    assert len(await world.read(url, most_bytes=50) or b"") == 51


async def test_file_is_over_when_its_time_is_and_leaves_nothing(world: World) -> None:
    url = await world.store(b"one")
    world.clock.reach(48 * 3600 - 1)
    assert await world.read(url) == b"one"
    await world.uploads.sweep()
    assert len(list(world.folder.iterdir())) == 1

    world.clock.reach(48 * 3600 + 1)
    assert await world.read(url) is None
    await world.uploads.sweep()
    assert list(world.folder.iterdir()) == []


async def test_account_has_room_again_when_its_files_are_over(world: World) -> None:
    for _ in range(3):
        await world.store(b"one")
    with pytest.raises(ApiError) as refused:
        await world.store(b"one")
    assert refused.value.kind is ErrorKind.QUOTA_EXHAUSTED
    await world.store(b"one", account_id="other")

    world.clock.reach(48 * 3600 + 1)
    assert await world.store(b"one")


async def test_upload_is_refused_when_it_or_its_account_has_too_many_bytes(world: World) -> None:
    with pytest.raises(ApiError) as refused:
        await world.store(bytes(101))
    assert refused.value.kind is ErrorKind.TOO_LARGE
    await world.store(bytes(100))
    with pytest.raises(ApiError) as refused:
        await world.store(bytes(51))

    assert refused.value.kind is ErrorKind.QUOTA_EXHAUSTED
    assert len(list(world.folder.iterdir())) == 1


async def test_permit_is_good_for_its_folder_until_it_is_over(world: World) -> None:
    permit = world.uploads.permit("acc")
    world.uploads.check(permit, f"{permit.folder}/a.png")
    for name in (
        "",
        permit.folder,
        f"{permit.folder}x/a.png",
        f"{world.uploads.permit('acc').folder}/a.png",
        f"{permit.folder}/{'a' * 2_000}",
    ):
        with pytest.raises(ApiError) as refused:
            world.uploads.check(permit, name)
        assert refused.value.kind is ErrorKind.FORBIDDEN

    world.clock.reach(301)
    with pytest.raises(ApiError, match="Policy expired"):
        world.uploads.check(permit, f"{permit.folder}/a.png")


async def test_signature_is_the_boxes_own(world: World) -> None:
    signature = world.uploads.sign("policy")
    other = Uploads(msgspec.UNSET, world.folder, SMALL, world.clock, Secret("t"))  # type: ignore[arg-type] - not asked

    assert world.uploads.is_signed("policy", signature)
    assert not world.uploads.is_signed("policy2", signature)
    assert not world.uploads.is_signed("policy", f"{signature}ä\ud800")
    assert not other.is_signed("policy", signature)
    assert "acc" not in world.uploads.permit("acc").folder


async def test_bytes_are_not_there_when_the_disk_lost_them(world: World) -> None:
    url = await world.store(b"one")
    for path in world.folder.iterdir():
        path.unlink()

    assert await world.read(url) is None


@pytest.mark.parametrize("wrong", [{"limit_bytes": 0}, {"keep_s": 0}, {"permit_s": -1}, {"account_files": 0}])
async def test_settings_are_refused_when_they_make_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        UploadsConfig(**wrong)
