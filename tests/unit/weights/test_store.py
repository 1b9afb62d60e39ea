"""Pulls from a hub on loopback that keeps or breaks its word, from local places, and by two at once."""

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from mirrors import REPOSITORY, Hub, blob, hub, published, sha256
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.weights.entry import Phase, Presence, Progress, Source, WeightsConfig, WeightsEntry
from qwenbox.weights.store import WeightsStore

DATA = blob(3_000_000)
# What a client has read but not handed on when the connection breaks is lost.
BUFFERED = 131_072
PARTIAL = "weights/m/model-q4.gguf.part"


def config(**fields) -> WeightsConfig:
    """Reaches nothing but what the test names."""
    nobody = f"http://127.0.0.1:{unused_port()}"
    known = {"hub_endpoint": nobody, "modelscope_endpoint": nobody, "stall_timeout_s": 20.0, "free_space_margin_bytes": 0}
    return WeightsConfig(**{**known, **fields})


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def store_of(home: Path, entry: WeightsEntry, **fields) -> WeightsStore:
    return WeightsStore(home, {"m": entry}, config(**fields))


def names_in(folder: Path) -> list[str]:
    """Files below the folder."""
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():  # noqa: ASYNC110 (a store has no event to wait for: other processes change it, too)
            await anyio.sleep(0.02)


def begins(it: Hub) -> list[int]:
    """The first byte each request asked for."""
    return [int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0 for _, wanted in it.asked]


def leave_partial(home: Path, data: bytes) -> None:
    partial = home / PARTIAL
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data)


async def test_pull_brings_the_file_from_the_hub(tmp_path: Path):
    with hub(DATA) as it:
        store = store_of(tmp_path, published(DATA, revision="abc"), hub_endpoint=it.url + "/")
        seen: list[Progress] = []
        path = await store.pull("m", seen.append)
    assert DATA == path.read_bytes()
    assert path == store.path("m") == store.place("m")
    assert [(f"/{REPOSITORY}/resolve/abc/model-q4.gguf", None)] == it.asked
    assert (Source.HUB, len(DATA), 1.0) == (seen[0].source, seen[0].total_bytes, seen[-1].fraction)
    assert [Phase.FETCHING, Phase.CHECKING, Phase.DONE] == list(dict.fromkeys(one.phase for one in seen))
    assert ["m.lock", "model-q4.gguf", "model-q4.gguf.json"] == names_in(tmp_path)


async def test_pull_does_nothing_when_the_file_is_here(tmp_path: Path):
    with hub(DATA) as it:
        await store_of(tmp_path, published(DATA), hub_endpoint=it.url).pull("m")
    await store_of(tmp_path, published(DATA)).pull("m")


async def test_pull_goes_on_where_the_connection_was_cut(tmp_path: Path):
    with hub(DATA) as it:
        it.cuts = [1_200_000, 700_000]
        path = await store_of(tmp_path, published(DATA), hub_endpoint=it.url).pull("m")
    assert DATA == path.read_bytes()
    first, second, third = begins(it)
    assert 0 == first < 1_200_000 - BUFFERED <= second <= 1_200_000
    assert second + 700_000 - BUFFERED <= third <= second + 700_000


async def test_pull_goes_on_where_an_earlier_one_was_killed(tmp_path: Path):
    leave_partial(tmp_path, DATA[:1_000_000])
    with hub(DATA) as it:
        store = store_of(tmp_path, published(DATA), hub_endpoint=it.url)
        assert (Presence.PARTIAL, 1 / 3) == (store.state("m").presence, store.state("m").fraction)
        path = await store.pull("m")
    assert DATA == path.read_bytes()
    assert ["bytes=1000000-"] == [wanted for _, wanted in it.asked]


async def test_pull_starts_over_when_the_server_knows_no_ranges(tmp_path: Path):
    leave_partial(tmp_path, DATA[:1_000_000])
    with hub(DATA) as it:
        it.has_ranges = False
        path = await store_of(tmp_path, published(DATA), hub_endpoint=it.url).pull("m")
    assert DATA == path.read_bytes()


async def test_pull_starts_over_once_when_what_was_left_is_corrupt(tmp_path: Path):
    leave_partial(tmp_path, b"x" * 1_000_000)
    with hub(DATA) as it:
        path = await store_of(tmp_path, published(DATA), hub_endpoint=it.url).pull("m")
    assert DATA == path.read_bytes()
    assert ["bytes=1000000-", None] == [wanted for _, wanted in it.asked]


async def test_pull_goes_on_from_what_another_source_brought(tmp_path: Path):
    with hub(DATA) as broken, hub(DATA) as whole:
        broken.cuts = [1_500_000, 0]
        store = store_of(tmp_path, published(DATA), hub_endpoint=broken.url, modelscope_endpoint=whole.url)
        path = await store.pull("m")
    assert DATA == path.read_bytes()
    assert [f"/models/{REPOSITORY}/resolve/master/model-q4.gguf"] == [path for path, _ in whole.asked]
    assert 1_500_000 - BUFFERED <= begins(whole)[0] <= 1_500_000


async def test_pull_asks_the_next_source_when_bytes_are_wrong(tmp_path: Path):
    other = blob(len(DATA), seed=8)
    with hub(other) as wrong, hub(DATA) as right:
        path = await store_of(tmp_path, published(DATA), hub_endpoint=wrong.url, modelscope_endpoint=right.url).pull("m")
    assert DATA == path.read_bytes()
    assert ([None], [None]) == ([wanted for _, wanted in wrong.asked], [wanted for _, wanted in right.asked])


@pytest.mark.parametrize(("status", "words"), [(404, "no such file"), (403, "without a login"), (500, "HTTP 500")])
async def test_pull_says_why_when_a_source_refuses(tmp_path: Path, status: int, words: str):
    with hub(DATA) as it:
        it.statuses = [status]
        with pytest.raises(ApiError, match=words):
            await store_of(tmp_path, published(DATA), hub_endpoint=it.url).pull("m", source=Source.HUB)
    assert 1 == len(it.asked)


async def test_pull_refuses_before_it_writes_when_the_size_is_another(tmp_path: Path):
    with hub(b"<html>Please log in</html>") as it, pytest.raises(ApiError, match="26 bytes, not 3,000,000"):
        await store_of(tmp_path, published(DATA), hub_endpoint=it.url).pull("m", source=Source.HUB)
    assert 0 == (tmp_path / PARTIAL).stat().st_size


async def test_pull_stops_when_a_source_sends_more_than_the_file(tmp_path: Path):
    with hub(DATA + b"more") as it, pytest.raises(ApiError, match="more than 3,000,000"):
        it.has_length = False
        await store_of(tmp_path, published(DATA), hub_endpoint=it.url).pull("m", source=Source.HUB)


async def test_pull_gives_up_on_a_source_that_stalls(tmp_path: Path):
    with hub(DATA) as it:
        it.pause_s = 5.0  # 230 s for all of it
        began = time.monotonic()
        with pytest.raises(ApiError, match="connection broke"):
            await store_of(tmp_path, published(DATA), hub_endpoint=it.url, stall_timeout_s=0.5).pull("m", source=Source.HUB)
        assert time.monotonic() - began < 30.0


async def test_pull_tells_everything_needed_when_no_source_answers(tmp_path: Path):
    leave_partial(tmp_path, DATA[:5_000])
    store = store_of(tmp_path, published(DATA))
    began = time.monotonic()
    with pytest.raises(ApiError) as caught:
        await store.pull("m")
    assert time.monotonic() - began < 30.0
    message = caught.value.message
    for word in ("Model Q4", "model-q4.gguf", "3,000,000 bytes", sha256(DATA), "qwenbox pull m --from PATH", str(store.place("m"))):
        assert word in message
    assert 2 == message.count("no connection")
    assert "5,000 bytes are here already" in message


async def test_pull_is_refused_before_it_begins_when_the_disk_is_too_full(tmp_path: Path):
    with hub(DATA) as it, pytest.raises(ApiError, match="Not enough space: 3 MB must fit"):
        await store_of(tmp_path, published(DATA), hub_endpoint=it.url, free_space_margin_bytes=2**60).pull("m")
    assert [] == it.asked


async def test_pull_says_so_when_the_home_cannot_be_written(tmp_path: Path):
    (tmp_path / "weights").write_text("a file where a folder should be")
    with pytest.raises(ApiError, match="Weights cannot be kept"):
        await store_of(tmp_path, published(DATA)).pull("m")


async def test_pull_takes_a_file_the_user_names(tmp_path: Path):
    named = tmp_path / "downloaded (1).gguf"
    named.write_bytes(DATA)
    path = await store_of(tmp_path / "home", published(DATA)).pull("m", origin=named)
    assert (DATA, True) == (path.read_bytes(), named.exists())


async def test_pull_takes_the_file_from_a_folder_of_the_config_first(tmp_path: Path):
    (tmp_path / "model-q4.gguf").write_bytes(DATA)
    with hub(DATA) as it:
        path = await store_of(tmp_path / "home", published(DATA), folders=(str(tmp_path),), hub_endpoint=it.url).pull("m")
    assert (DATA, []) == (path.read_bytes(), it.asked)


async def test_pull_asks_nobody_else_when_the_named_file_is_wrong(tmp_path: Path):
    (tmp_path / "model-q4.gguf").write_bytes(blob(len(DATA), seed=8))
    with hub(DATA) as it, pytest.raises(ApiError, match="its bytes are wrong"):
        await store_of(tmp_path / "home", published(DATA), hub_endpoint=it.url).pull("m", origin=tmp_path)
    assert [] == it.asked


async def test_pull_accepts_a_file_put_in_its_place_by_hand(tmp_path: Path):
    store = store_of(tmp_path, published(DATA))
    store.place("m").parent.mkdir(parents=True)
    store.place("m").write_bytes(DATA)
    assert store.path("m") is None
    assert store.place("m") == await store.pull("m") == store.path("m")


async def test_pull_replaces_a_file_that_was_changed(tmp_path: Path):
    with hub(DATA) as it:
        store = store_of(tmp_path, published(DATA), hub_endpoint=it.url)
        (await store.pull("m")).write_bytes(DATA[:-1] + b"!")
        assert (None, Presence.MISSING) == (store.path("m"), store.state("m").presence)
        assert DATA == (await store.pull("m")).read_bytes()


async def test_pull_lets_one_fetch_and_the_other_wait(tmp_path: Path):
    phases: dict[str, set[Phase]] = {"one": set(), "two": set()}
    with hub(DATA) as it:
        it.pause_s = 0.1
        stores = {name: store_of(tmp_path, published(DATA), hub_endpoint=it.url) for name in phases}
        states: list[Presence] = []

        async def run(name: str) -> None:
            await stores[name].pull("m", lambda now: phases[name].add(now.phase))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "one")
            await until(lambda: Phase.FETCHING in phases["one"])
            tasks.start_soon(run, "two")
            await until(lambda: Phase.WAITING in phases["two"])
            states.append(store_of(tmp_path, published(DATA)).state("m").presence)
            it.pause_s = 0.0
    assert [None] == [wanted for _, wanted in it.asked]
    assert {Phase.WAITING, Phase.DONE} == phases["two"]
    assert Phase.FETCHING in phases["one"]
    assert [Presence.FETCHING] == states


async def test_pull_keeps_what_it_has_when_it_is_cancelled(tmp_path: Path):
    with hub(DATA) as it:
        it.pause_s = 0.1
        store = store_of(tmp_path, published(DATA), hub_endpoint=it.url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.pull, "m")
            await until(lambda: (tmp_path / PARTIAL).exists() and (tmp_path / PARTIAL).stat().st_size > 0)
            tasks.cancel_scope.cancel()
        assert (Presence.PARTIAL, True) == (store.state("m").presence, 0 < (tmp_path / PARTIAL).stat().st_size < len(DATA))
        it.pause_s = 0.0
        assert DATA == (await store.pull("m")).read_bytes()
    assert it.asked[1][1] is not None


async def test_pull_of_an_address_without_hash_resumes_only_the_same_file(tmp_path: Path):
    with hub(DATA) as it:
        entry = WeightsEntry(title="own", url=it.url + "/own.gguf", file="model-q4.gguf")
        it.cuts = [1_000_000, 0]
        with pytest.raises(ApiError, match="connection broke"):
            await store_of(tmp_path, entry).pull("m")
        it.data, it.etag = blob(2_000_000, seed=9), '"second"'
        path = await store_of(tmp_path, entry).pull("m")
        assert it.data == path.read_bytes()
        assert ["model-q4.gguf", "model-q4.gguf.json"] == names_in(path.parent)


async def test_pull_of_an_address_without_hash_goes_on_with_the_same_file(tmp_path: Path):
    with hub(DATA) as it:
        entry = WeightsEntry(title="own", url=it.url + "/own.gguf", file="model-q4.gguf")
        it.cuts = [1_000_000]
        assert DATA == (await store_of(tmp_path, entry).pull("m")).read_bytes()
    assert 1_000_000 - BUFFERED <= begins(it)[1] <= 1_000_000


async def test_pull_of_an_address_refuses_what_is_no_weights_file(tmp_path: Path):
    with hub(b"<html>not found</html>") as it, pytest.raises(ApiError, match="no GGUF file"):
        await store_of(tmp_path, WeightsEntry(title="own", url=it.url, file="own.gguf")).pull("m")


@pytest.mark.parametrize("endpoint", ["no address", "ftp://127.0.0.1"])
async def test_pull_says_so_when_an_endpoint_is_no_address(tmp_path: Path, endpoint: str):
    with pytest.raises(ApiError, match=r"is not an http address|the connection broke"):
        await store_of(tmp_path, published(DATA), hub_endpoint=endpoint).pull("m", source=Source.HUB)


async def test_path_of_the_users_own_file_stays_where_it_lies(tmp_path: Path):
    own = tmp_path / "own.gguf"
    own.write_bytes(DATA)
    store = store_of(tmp_path / "home", WeightsEntry(title="own", path=str(own)))
    assert own == store.path("m") == await store.pull("m")


async def test_pull_of_the_users_own_file_checks_its_hash(tmp_path: Path):
    own = tmp_path / "own.gguf"
    own.write_bytes(DATA)
    right = store_of(tmp_path / "home", WeightsEntry(title="own", path=str(own), sha256=sha256(DATA)))
    assert right.path("m") is None
    assert own == await right.pull("m") == right.path("m")
    wrong = store_of(tmp_path / "other", WeightsEntry(title="own", path=str(own), sha256=sha256(b"")))
    with pytest.raises(ApiError, match="not the file that m names"):
        await wrong.pull("m")
    assert own.exists()


async def test_pull_of_the_users_own_file_says_so_when_it_is_gone(tmp_path: Path):
    store = store_of(tmp_path, WeightsEntry(title="own", path=str(tmp_path / "gone.gguf")))
    assert Presence.MISSING == store.state("m").presence
    with pytest.raises(ApiError, match="is not there"):
        await store.pull("m")


async def test_verify_finds_a_changed_byte(tmp_path: Path):
    with hub(DATA) as it:
        store = store_of(tmp_path, published(DATA), hub_endpoint=it.url)
        path = await store.pull("m")
    assert await store.verify("m")
    path.write_bytes(DATA[:-1] + b"!")
    assert not await store.verify("m")


async def test_probe_tells_who_has_the_file_and_fetches_nothing(tmp_path: Path):
    (tmp_path / "model-q4.gguf").write_bytes(DATA)
    with hub(DATA) as it:
        it.statuses = [404]
        store = store_of(tmp_path / "home", published(DATA), folders=(str(tmp_path),), hub_endpoint=it.url, modelscope_endpoint=it.url)
        found = await store.probe("m")
    assert {Source.LOCAL: "", Source.HUB: "it has no such file (HTTP 404)", Source.MODELSCOPE: ""} == found
    assert Presence.MISSING == store.state("m").presence


async def test_probe_says_why_nobody_answers(tmp_path: Path):
    found = await store_of(tmp_path / "home", published(DATA), folders=(str(tmp_path),), hub_endpoint="no address").probe("m")
    assert f"no model-q4.gguf at {tmp_path}" == found[Source.LOCAL]
    assert "no address/Maker/Model-GGUF/resolve/main/model-q4.gguf is not an http address" == found[Source.HUB]
    assert found[Source.MODELSCOPE].startswith("no connection")


async def test_remove_deletes_what_was_fetched(tmp_path: Path):
    with hub(DATA) as it:
        store = store_of(tmp_path, published(DATA), hub_endpoint=it.url)
        await store.pull("m")
    await store.remove("m")
    assert (None, Presence.MISSING) == (store.path("m"), store.state("m").presence)


async def test_require_says_what_to_run_when_weights_are_missing(tmp_path: Path):
    with hub(DATA) as it:
        async with store_of(tmp_path, published(DATA), hub_endpoint=it.url) as store:
            with pytest.raises(ApiError, match=r"not here\. Run: qwenbox pull m") as caught:
                store.require("m")
    assert ErrorKind.MODEL_NOT_FOUND == caught.value.kind
    assert [] == it.asked


async def test_require_fetches_and_tells_how_far_when_the_config_says_so(tmp_path: Path):
    with hub(DATA) as it:
        it.pause_s = 0.1
        async with store_of(tmp_path, published(DATA), hub_endpoint=it.url, is_pulled_on_use=True) as store:
            with pytest.raises(ApiError, match=r"Model Q4\) are being fetched"):
                store.require("m")

            def refusal() -> ApiError:
                with pytest.raises(ApiError, match="being fetched") as caught:
                    store.require("m")
                return caught.value

            await until(lambda: re.search(r"being fetched: [1-9]\d?%", refusal().message) is not None)
            assert refusal().retry_after_s is not None
            it.pause_s = 0.0
            await until(lambda: store.path("m") is not None)
            assert store.path("m") == store.require("m")
    assert 1 == len(it.asked)


async def test_require_does_not_hammer_sources_that_failed(tmp_path: Path):
    with hub(DATA) as it:
        it.statuses = [404] * 9
        async with store_of(tmp_path, published(DATA), hub_endpoint=it.url, is_pulled_on_use=True) as store:
            with pytest.raises(ApiError, match="being fetched"):
                store.require("m")
            await until(lambda: store.state("m").presence is not Presence.FETCHING)
            with pytest.raises(ApiError, match="Fetching them failed"):
                store.require("m")
    assert 1 == len(it.asked)


async def test_store_names_what_there_is_when_a_name_is_unknown(tmp_path: Path):
    with pytest.raises(ApiError, match="There are: m") as caught:
        await store_of(tmp_path, published(DATA)).pull("other")
    assert (ErrorKind.MODEL_NOT_FOUND, "other") == (caught.value.kind, caught.value.param)


def test_store_refuses_names_that_leave_its_folder(tmp_path: Path):
    with pytest.raises(ValueError, match="letters, digits"):
        WeightsStore(tmp_path, {"../m": published(DATA)}, WeightsConfig())
