"""This is where a run's batches are made, waited for and read: each exactly once, whatever ends in between."""

import tempfile
from collections.abc import Awaitable, Callable
from typing import BinaryIO, TypeVar

import anyio
import msgspec

from qwenbox.cli.batch.spool import Pieces, Requests
from qwenbox.cli.batch.state import Part, State, StateFile
from qwenbox.client.batches import Batch, BatchesClient, NewBatch
from qwenbox.terms.errors import ApiError, ErrorKind

T = TypeVar("T")

# What may be better next time. CONFLICT: a box that is just busy with the same thing.
_PASSING = frozenset(
    {
        ErrorKind.OVERLOADED,
        ErrorKind.RATE_LIMITED,
        ErrorKind.TIMEOUT,
        ErrorKind.ENGINE_FAILED,
        ErrorKind.INTERNAL,
        ErrorKind.CONFLICT,
    }
)
# Answers which say that nothing was made.
_REFUSED = frozenset({ErrorKind.RATE_LIMITED, ErrorKind.CONFLICT})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 30.0
# How long the other side may be away before a run stops; the same command goes on later.
_GIVE_UP_S, _FIRST_GIVE_UP_S = 900.0, 5.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S, _PAUSE_SHARE = 0.2, 10.0, 0.05
# Clocks differ: a file of this run may seem older than the run.
_SKEW_S = 86_400.0
_LABEL_CHARACTERS = 100


class Patience:
    """Tries again what fails in passing, ever slower. notice: told what is waited for, "" once it is over."""

    def __init__(self, notice: Callable[[str], None], give_up_s: float = _GIVE_UP_S) -> None:
        self._notice = notice
        self._give_up_s = give_up_s
        self._since: float | None = None
        self._tries = 0

    async def hold(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns; its last ApiError once it failed for too long."""
        while True:
            try:
                done = await work()
            except ApiError as error:
                await self.failed(error)
            else:
                self.succeeded()
                return done

    async def failed(self, error: ApiError) -> None:
        """Wait a while. Raises the error when it is none that passes, or when it is enough."""
        now = anyio.current_time()
        since = self._since = self._since if self._since is not None else now
        if error.kind not in _PASSING or now - since > self._give_up_s:
            raise error
        wait_s = max(error.retry_after_s or 0.0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self._tries, 10)))
        self._tries += 1
        self._notice(f"{error.message or error.kind.value} Trying again in {wait_s:.3g} s.")
        await anyio.sleep(wait_s)

    def succeeded(self) -> None:
        if self._since is not None:
            self._notice("")
        self._since, self._tries = None, 0


class Runner:
    """state: is noted in `file` before and after all that cannot be taken back. watch: told how batches stand, by their marker."""

    def __init__(self, client: BatchesClient, file: StateFile, state: State, watch: Callable[[dict[str, Batch]], None]) -> None:
        self.batches: dict[str, Batch] = {}
        self._label = file.path.name.removesuffix(".state")[:_LABEL_CHARACTERS]
        self._client = client
        self._file = file
        self._state = state
        self._watch = watch
        self._patience = Patience(lambda text: None)

    def listen(self, notice: Callable[[str], None]) -> None:
        """Tell what is waited for."""
        self._patience = Patience(notice)

    async def greet(self) -> None:
        """Raises ApiError soon when nobody is there, or the key is wrong."""
        first = Patience(lambda text: None, _FIRST_GIVE_UP_S)
        await first.hold(self._first)

    async def submit(self, requests: Requests, window: str) -> None:
        """Make the batches that are not there yet."""
        for part in self._state.parts:
            if not part.batch_id:
                await self._place(part, requests, window)

    async def wait(self) -> None:
        """Until all batches have ended."""
        for part in self._state.parts:
            if part.is_over:
                await self.look(part)
        begun = anyio.current_time()
        while open_parts := [part for part in self._state.parts if not part.is_over]:
            for part in open_parts:
                await self.look(part)
            self._watch(self.batches)
            if not all(part.is_over for part in open_parts):
                elapsed_s = anyio.current_time() - begun
                await anyio.sleep(min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S * len(open_parts), elapsed_s * _PAUSE_SHARE)))

    async def look(self, part: Part) -> Batch:
        """How a batch stands now."""
        batch = await self._patience.hold(lambda: self._client.get(part.batch_id))
        self.batches[part.marker] = batch
        if batch.is_over and not part.is_over:
            part.is_over, part.status = True, batch.status
            self._file.save(self._state)
        return batch

    async def collect(self, requests: Requests, results: Pieces) -> None:
        """Put each request's result line by its number, the last round's last; those without one get an error."""
        for part in self._state.parts:
            batch = self.batches.get(part.marker) or await self.look(part)
            left = {requests[number].custom_id: (line, number) for line, number in enumerate(part.numbers(), 1)}
            for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
                await self._read(file_id, left, results)
            for custom_id, (line, number) in left.items():
                results.put(number, _unanswered(batch, custom_id, line))

    async def cancel(self) -> list[str]:
        """End what still runs; the ids of those batches."""
        open_ids = [part.batch_id for part in self._state.parts if part.batch_id and not part.is_over]
        return [batch_id for batch_id in open_ids if await self._cancel(batch_id)]

    async def abandon(self) -> None:
        """End the batches of the run that this one replaces."""
        while self._state.abandoned:
            await self._cancel(self._state.abandoned[-1])
            self._state.abandoned.pop()
            self._file.save(self._state)

    async def _cancel(self, batch_id: str) -> bool:
        """False when it is over already."""
        try:
            await self._client.cancel(batch_id)
        except ApiError as error:
            if error.kind not in (ErrorKind.CONFLICT, ErrorKind.NOT_FOUND):
                raise
            return False
        return True

    async def _first(self) -> None:
        async for _ in self._client.every(name=self._state.run_id):
            return

    async def _place(self, part: Part, requests: Requests, window: str) -> None:
        if part.is_creating:
            await self._settle(part)
        while not part.batch_id:
            if not part.file_id:
                await self._upload(part, requests)
            part.is_creating = True
            self._file.save(self._state)
            metadata = {"ds_name": part.marker, "ds_description": self._label}
            new = NewBatch(input_file_id=part.file_id, endpoint=part.endpoint, completion_window=window, metadata=metadata)
            try:
                batch = await self._client.create(new)
            except ApiError as error:
                await self._not_made(part, error)
            else:
                self._patience.succeeded()
                self._note(part, batch)

    async def _not_made(self, part: Part, error: ApiError) -> None:
        if error.kind not in _PASSING or error.kind in _REFUSED:
            part.is_creating = False
            self._file.save(self._state)
        await self._patience.failed(error)
        if part.is_creating:
            await self._settle(part)

    async def _settle(self, part: Part) -> None:
        """A batch was asked for and its answer did not come: take it if it is there, else make sure that it never will be.

        Without its input file a late request for it makes no batch; and a file that a batch reads is not deleted.
        """
        while True:
            if (batch := await self._patience.hold(lambda: self._find(part))) is not None:
                self._note(part, batch)
                return
            try:
                await self._client.delete_file(part.file_id)
            except ApiError as error:
                if error.kind is not ErrorKind.NOT_FOUND:
                    await self._patience.failed(error)
                    continue
            if (batch := await self._patience.hold(lambda: self._find(part))) is not None:
                self._note(part, batch)
                return
            part.file_id, part.is_creating = "", False
            self._file.save(self._state)
            return

    async def _find(self, part: Part) -> Batch | None:
        async for batch in self._client.every(name=part.marker):
            if batch.name == part.marker:
                return batch
        return None

    def _note(self, part: Part, batch: Batch) -> None:
        part.batch_id, part.status, part.is_creating = batch.id, batch.status, False
        self._file.save(self._state)
        self.batches[part.marker] = batch
        self._watch(self.batches)

    async def _upload(self, part: Part, requests: Requests) -> None:
        name = f"{part.marker}.jsonl"
        data = b"".join(requests[number].wire() + b"\n" for number in part.numbers())
        since = self._state.begun_at - _SKEW_S
        found = await self._patience.hold(lambda: self._client.find_file(name, since))
        if found is None or found.bytes != len(data):
            found = await self._patience.hold(lambda: self._client.upload(name, data))
        part.file_id = found.id
        self._file.save(self._state)

    async def _read(self, file_id: str, left: dict[str, tuple[int, int]], results: Pieces) -> None:
        """Take the results of a file, and their requests off `left`."""
        with tempfile.TemporaryFile() as target:
            await self._patience.hold(lambda: self._download(file_id, target))
            target.seek(0)
            for line in target:
                place = left.pop(_named(line), None)
                if place is not None:
                    results.put(place[1], line.rstrip(b"\n"))

    async def _download(self, file_id: str, target: BinaryIO) -> None:
        target.seek(0)
        target.truncate()
        await self._client.content(file_id, target)


class _Named(msgspec.Struct, frozen=True):
    custom_id: str


def _named(line: bytes) -> str:
    try:
        return msgspec.json.decode(line, type=_Named).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(ErrorKind.INVALID_REQUEST, "A result file of the batch has a line that is no result.") from error


def _unanswered(batch: Batch, custom_id: str, line: int) -> bytes:
    """The result line of a request that has none. line: its place in the batch's file, from 1."""
    faults = (batch.errors.data if batch.errors else None) or ()
    fault = next((fault for fault in faults if fault.line in (line, None)), None)
    if fault is not None:
        error = {"code": fault.code or "failed", "message": fault.message or ""}
    elif faults:
        text = f"Its batch was not run, for line {faults[0].line} of it: {faults[0].message}"
        error = {"code": "batch_failed", "message": text}
    else:
        error = {"code": f"batch_{batch.status}", "message": f"The batch {batch.id} is {batch.status} without a result for this line."}
    return msgspec.json.encode({"id": "", "custom_id": custom_id, "response": None, "error": error})
