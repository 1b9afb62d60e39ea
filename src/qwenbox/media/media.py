"""This is where the pictures of a request become bytes: from http(s) addresses, data URLs and uploads, within limits."""

import hashlib
from collections.abc import Iterable, Iterator
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
import msgspec

from qwenbox.media import inline, picture, refusals
from qwenbox.media.config import MediaConfig
from qwenbox.media.download import Downloads
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest, ImagePart, Message, Part, VideoPart
from qwenbox.terms.errors import ApiError
from qwenbox.terms.image import ImageRequest
from qwenbox.uploads import SCHEME, Uploads

_LEAST_FRAMES, _MOST_FRAMES = 4, 512


class _Job(msgspec.Struct, frozen=True):
    """One thing to fetch. number: which of the uploads of this name, from 0; of other addresses always 0."""

    url: str
    number: int


class Media:
    def __init__(self, config: MediaConfig, downloads: Downloads, uploads: Uploads) -> None:
        self._config = config
        self._downloads = downloads
        self._uploads = uploads
        self._places = anyio.Semaphore(config.fetches)
        self._decoders = anyio.CapacityLimiter(config.decoders)
        # Only of accounts that fetch right now.
        self._accounts: WeakValueDictionary[str, anyio.Semaphore] = WeakValueDictionary()

    async def load(self, request: ChatRequest, caller: Caller, *, resolves_uploads: bool) -> ChatRequest:
        """The same request with the bytes of every picture, whose `url` then is their checksum: nothing below has to fetch, and the same
        picture is the same wherever it came from.

        resolves_uploads: the caller sent the header that oss:// names need.
        Raises ApiError(INVALID_REQUEST) with the service's text.
        """
        _check_frames(request)
        loaded = await self._loaded(request.pictures, caller, resolves_uploads)
        messages = tuple(_with(message, loaded) for message in request.messages)
        return msgspec.structs.replace(request, messages=messages)

    async def load_drawn_from(self, request: ImageRequest, caller: Caller, *, resolves_uploads: bool) -> ImageRequest:
        """As `load`, of the pictures that others are to be drawn from."""
        loaded = await self._loaded(request.images, caller, resolves_uploads)
        return msgspec.structs.replace(
            request, images=tuple(_filled(image, found) for image, found in zip(request.images, loaded, strict=True))
        )

    async def _loaded(self, images: Iterable[ImagePart], caller: Caller, resolves_uploads: bool) -> Iterator[ImagePart]:
        """What each is, in order."""
        jobs = list(_jobs(images))
        if len(jobs) > self._config.request_pictures:
            raise refusals.refused(refusals.TOO_MANY.format(limit=self._config.request_pictures))
        found = await self._fetch_all(frozenset(jobs), caller, resolves_uploads)
        return (found[job] for job in jobs)

    async def _fetch_all(self, jobs: frozenset[_Job], caller: Caller, resolves_uploads: bool) -> dict[_Job, ImagePart]:
        found: dict[_Job, ImagePart] = {}
        failures: list[ApiError] = []
        own = self._accounts.get(caller.account_id)
        if own is None:
            own = self._accounts[caller.account_id] = anyio.Semaphore(self._config.account_fetches)
        budget = _Budget(self._config.request_bytes)

        async def fetch(job: _Job) -> None:
            try:
                # To the end, so that one account's thousand pictures are not before another's one at the decoder.
                async with own:
                    async with self._places:
                        data = await self._bytes(job, caller, resolves_uploads)
                    budget.take(len(data))
                    found[job] = await self._looked(data)
            except ApiError as error:
                # Another one, since this one's traceback holds what was read so far: ten megabytes until the next collection of garbage.
                failures.append(refusals.again(error))
                tasks.cancel_scope.cancel()

        try:
            with anyio.fail_after(self._config.request_s):
                async with anyio.create_task_group() as tasks:
                    for job in jobs:
                        tasks.start_soon(fetch, job)
        except TimeoutError as error:
            raise refusals.refused(refusals.TIMED_OUT) from error
        if failures:
            # Taken out: what a frame holds while it raises it holds in a circle.
            raise failures.pop()
        return found

    async def _bytes(self, job: _Job, caller: Caller, resolves_uploads: bool) -> bytes:
        most_bytes = self._config.item_bytes
        if inline.is_inline(job.url):
            return await anyio.to_thread.run_sync(inline.read, job.url, most_bytes)
        if not job.url.startswith(SCHEME):
            return await self._downloads.get(job.url, most_bytes)
        data = await self._uploads.read(caller.account_id, job.url, job.number, most_bytes) if resolves_uploads else None
        if data is None:
            raise refusals.refused(refusals.WRONG_URL)
        if len(data) > most_bytes:
            raise refusals.refused(refusals.TOO_LARGE)
        return data

    async def _looked(self, data: bytes) -> ImagePart:
        seen = await anyio.to_thread.run_sync(picture.look, data, self._config.most_pixels, limiter=self._decoders)
        checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return ImagePart(url=checksum, data=data, media_type=seen.media_type, width=seen.width, height=seen.height)


class _Budget:
    """The bytes that a request's pictures may have together."""

    def __init__(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes

    def take(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise refusals.refused(refusals.TOO_LARGE)


def _check_frames(request: ChatRequest) -> None:
    for message in request.messages:
        for part in message.content:
            if isinstance(part, VideoPart) and not _LEAST_FRAMES <= len(part.frames) <= _MOST_FRAMES:
                raise refusals.refused(refusals.WRONG_FRAMES)


def _jobs(images: Iterable[ImagePart]) -> Iterator[_Job]:
    """One for each picture, in order. SDKs upload once for each mention of a file, and may do so under one name for different files."""
    mentions: dict[str, int] = {}
    for image in images:
        number = mentions.get(image.url, 0)
        if image.url.startswith(SCHEME):
            mentions[image.url] = number + 1
        yield _Job(image.url, number)


def _with(message: Message, loaded: Iterator[ImagePart]) -> Message:
    if not any(True for _ in message.pictures):
        return message
    return msgspec.structs.replace(message, content=tuple([_loaded(part, loaded) for part in message.content]))


def _loaded(part: Part, loaded: Iterator[ImagePart]) -> Part:
    if isinstance(part, ImagePart):
        return _filled(part, next(loaded))
    if isinstance(part, VideoPart):
        return msgspec.structs.replace(part, frames=tuple([_filled(frame, next(loaded)) for frame in part.frames]))
    return part


def _filled(asked: ImagePart, found: ImagePart) -> ImagePart:
    return msgspec.structs.replace(found, min_pixels=asked.min_pixels, max_pixels=asked.max_pixels)
