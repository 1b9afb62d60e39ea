"""This is where weights are copied from a place the user names: a file, or a folder that holds it."""

from pathlib import Path

from anyio import to_thread

from qwenbox.weights.entry import WeightsEntry
from qwenbox.weights.fetch import Fetch, SourceFailed
from qwenbox.weights.landing import BLOCK_BYTES


async def copy(fetch: Fetch, places: tuple[Path, ...]) -> None:
    """Copy the entry's file from the first of `places` that has it. Raises SourceFailed if none has, or cannot be read."""
    found = _find(fetch.entry, places)
    if found is None:
        raise SourceFailed(missing(fetch.entry, places))
    expected = fetch.entry.bytes
    try:
        size = found.stat().st_size
        if expected and size != expected:
            raise SourceFailed(f"{found} has {size:,} bytes, not {expected:,}")
        await _copy(fetch, found)
    except PermissionError as error:
        raise SourceFailed(f"{found} may not be read") from error


def missing(entry: WeightsEntry, places: tuple[Path, ...]) -> str:
    """Why the file can't be copied; "" if it lies at one of `places`."""
    return "" if _find(entry, places) else f"no {entry.file} at " + ", ".join(str(place) for place in places)


def _find(entry: WeightsEntry, places: tuple[Path, ...]) -> Path | None:
    return next((file for place in places if (file := _file_at(place, entry.file))), None)


async def _copy(fetch: Fetch, found: Path) -> None:
    landing = fetch.landing
    await to_thread.run_sync(landing.restart)
    with found.open("rb") as file:
        while block := await to_thread.run_sync(file.read, BLOCK_BYTES):
            await to_thread.run_sync(landing.write, block)
            fetch.meter.at(landing.size)


def _file_at(place: Path, name: str) -> Path | None:
    """`place` itself may be the file, whatever it is called."""
    place = place.expanduser()
    if place.is_file():
        return place
    return place / name if (place / name).is_file() else None
