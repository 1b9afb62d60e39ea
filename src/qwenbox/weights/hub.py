"""This is where weights come over HTTP: the hub, ModelScope, or any address; a cut download goes on where it broke."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint_if_cancelled
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, ConnectError, DetailedPyreqwestError
from pyreqwest.request import RequestBuilder
from pyreqwest.response import Response

from qwenbox.weights.entry import WeightsConfig, WeightsEntry
from qwenbox.weights.fetch import Fetch, SourceFailed
from qwenbox.weights.landing import Landing
from qwenbox.weights.space import require_space

FLUSH_BYTES = 2**20
MAX_CUTS = 50
PAUSE_S = 0.5
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def hub_address(entry: WeightsEntry, config: WeightsConfig) -> str:
    return f"{config.hub_endpoint.rstrip('/')}/{entry.repository}/resolve/{entry.revision}/{entry.file}"


def modelscope_address(entry: WeightsEntry, config: WeightsConfig) -> str:
    endpoint = config.modelscope_endpoint.rstrip("/")
    return f"{endpoint}/models/{entry.repository}/resolve/{entry.modelscope_revision}/{entry.file}"


async def download(fetch: Fetch, url: str, config: WeightsConfig) -> None:
    """Bring the file behind `url` into the landing, from where it ends. Proxies of the environment are used.

    Raises SourceFailed: at once when nothing answers or the answer is not this file, later when bytes stop coming.
    """
    try:
        client = _client(config)
    except (BuilderError, OSError) as error:
        raise SourceFailed(f"no HTTP client: {error}") from error
    async with client:
        for _ in range(MAX_CUTS):
            before = fetch.landing.size
            if fetch.entry.bytes and before == fetch.entry.bytes:
                return
            try:
                if await _stream(fetch, client, url, config):
                    _origin(fetch.landing).unlink(missing_ok=True)
                    return
            except asyncio.CancelledError:
                await checkpoint_if_cancelled()  # pyreqwest raises a cancellation of its own, which no anyio scope would know
                raise
            except DetailedPyreqwestError as error:
                # Only a line that brought something is worth another try: a closed network must fail fast.
                if fetch.landing.size <= before:
                    raise SourceFailed(_reason(error)) from error
            await anyio.sleep(PAUSE_S)
    raise SourceFailed(f"the connection broke {MAX_CUTS} times")


async def probe(url: str, config: WeightsConfig) -> str:
    """Ask for the file's first byte; why it would not come, "" if it would."""
    try:
        async with _client(config) as client, client.get(url).header("Range", "bytes=0-0").build_streamed() as response:
            return "" if response.status in (200, 206) else _refusal(response.status)
    except asyncio.CancelledError:
        await checkpoint_if_cancelled()
        raise
    except DetailedPyreqwestError as error:
        return _reason(error)
    except ValueError:
        return f"{url} is not an http address"


def _client(config: WeightsConfig) -> Client:
    return (
        ClientBuilder()
        .connect_timeout(timedelta(seconds=config.connect_timeout_s))
        .read_timeout(timedelta(seconds=config.stall_timeout_s))
        .user_agent("qwenbox")
        # The bytes on disk are the bytes that are hashed: nothing may unpack them on the way.
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .build()
    )


async def _stream(fetch: Fetch, client: Client, url: str, config: WeightsConfig) -> bool:
    """One request; False when the server says that what we have cannot be the beginning of its file."""
    landing = fetch.landing
    if landing.size > fetch.entry.bytes > 0:
        landing.restart()
    async with _request(fetch, client, url).build_streamed() as response:
        if response.status == 416 and landing.size:
            landing.restart()
            return False
        total = _accept(fetch, response)
        if total and not fetch.entry.bytes:
            fetch.meter.total_bytes = total
            require_space(landing.path.parent, total - landing.size, config.free_space_margin_bytes)
        if not fetch.entry.sha256:
            _origin(landing).write_text(_validator(response), encoding="utf-8")
        await _receive(fetch, response)
    return True


def _request(fetch: Fetch, client: Client, url: str) -> RequestBuilder:
    landing = fetch.landing
    try:
        request = client.get(url).header("Accept-Encoding", "identity")
    except ValueError as error:
        raise SourceFailed(f"{url} is not an http address") from error
    if landing.size and not fetch.entry.sha256:
        # Without a hash only the server knows whether its file is still the one we began with.
        origin = _origin(landing)
        known = origin.read_text(encoding="utf-8") if origin.exists() else ""
        if known:
            request = request.header("If-Range", known)
        else:
            landing.restart()
    if landing.size:
        request = request.header("Range", f"bytes={landing.size}-")
    return request


def _origin(landing: Landing) -> Path:
    return landing.path.with_name(landing.path.name + ".from")


def _accept(fetch: Fetch, response: Response) -> int:
    """Check that this answer continues the file; the file's whole size, 0 if unknown."""
    landing, expected = fetch.landing, fetch.entry.bytes
    if response.status not in (200, 206):
        raise SourceFailed(_refusal(response.status))
    length = int(response.get_header("content-length") or 0)
    start, total = 0, length
    if response.status == 206:
        found = CONTENT_RANGE.match(response.get_header("content-range") or "")
        start, total = (int(found[1]), int(found[2].replace("*", "0"))) if found else (-1, 0)
        if start != landing.size:
            raise SourceFailed("it answered another range than asked for")
    if expected and total and total != expected:
        raise SourceFailed(f"its file has {total:,} bytes, not {expected:,}")
    if start == 0 and landing.size:
        landing.restart()
    return total


async def _receive(fetch: Fetch, response: Response) -> None:
    landing, pending = fetch.landing, bytearray()
    try:
        while (chunk := await response.body_reader.read_chunk()) is not None:
            pending += memoryview(chunk)
            fetch.meter.at(landing.size + len(pending))
            if fetch.entry.bytes and landing.size + len(pending) > fetch.entry.bytes:
                raise SourceFailed(f"it sent more than {fetch.entry.bytes:,} bytes")
            if len(pending) >= FLUSH_BYTES:
                full, pending = pending, bytearray()
                await to_thread.run_sync(landing.write, full)
    finally:
        landing.write(pending)
        landing.flush()


def _validator(response: Response) -> str:
    """What If-Range may carry: a strong ETag, else the date."""
    tag = response.get_header("etag") or ""
    return tag if tag and not tag.startswith("W/") else response.get_header("last-modified") or ""


def _refusal(status: int) -> str:
    match status:
        case 404:
            return "it has no such file (HTTP 404)"
        case 401 | 403:
            return f"it refuses without a login (HTTP {status})"
        case _:
            return f"it answered HTTP {status}"


def _reason(error: DetailedPyreqwestError) -> str:
    causes = [cause["message"] for cause in error.details["causes"] or ()]
    # The first cause repeats the address, the last one is the system's own word.
    last = causes[-1] if causes else error.message
    return f"no connection ({last})" if isinstance(error, ConnectError) else f"the connection broke ({last})"
