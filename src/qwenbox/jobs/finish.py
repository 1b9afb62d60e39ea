"""This is where a batch that is over gets its files: results in the order of the input, and what failed or was never run."""

import hashlib
from collections.abc import Generator
from contextlib import ExitStack
from typing import BinaryIO

import anyio.to_thread
import msgspec

from qwenbox.clock import Clock
from qwenbox.dialects.openai import batches as wire
from qwenbox.files import Files, no_room
from qwenbox.jobs import lines
from qwenbox.jobs.line import call_id
from qwenbox.jobs.queue import Queue
from qwenbox.terms.job import Batch, BatchStatus, Purpose, StoredFile

# Results in memory at a time.
_TOGETHER = 500
_UNRUN = {
    BatchStatus.CANCELLED: ("batch_cancelled", "This request was not executed: the batch was cancelled."),
    BatchStatus.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
}


class Finisher:
    """Files are written under names made from the batch's id: whoever writes them again after a crash writes the same files."""

    def __init__(self, queue: Queue, files: Files, clock: Clock, line_limit_bytes: int) -> None:
        self._queue = queue
        self._files = files
        self._clock = clock
        self._line_limit_bytes = line_limit_bytes

    async def finish(self, batch: Batch) -> None:
        """Write both files and end the batch. Raises ApiError when that cannot be done now."""
        end = BatchStatus.CANCELLED if batch.status is BatchStatus.CANCELLING else BatchStatus.COMPLETED
        with ExitStack() as stack:
            writing = _Writing(self, batch, stack)
            for first in range(0, batch.total, _TOGETHER):
                count = min(_TOGETHER, batch.total - first)
                results = await self._queue.results(batch.id, first, count)
                if len(results) < count and end is BatchStatus.COMPLETED:
                    end = BatchStatus.EXPIRED
                await anyio.to_thread.run_sync(writing.write, first, count, results, end)
            await anyio.to_thread.run_sync(writing.close)
        await self._queue.finish(batch, end, writing.stored("output", writing.output_bytes), writing.stored("errors", writing.error_bytes))

    def open_input(self, batch: Batch) -> Generator[bytes]:
        with self._files.path(batch.input_file_id).open("rb") as handle:
            for _, _, text in lines.read(handle, self._line_limit_bytes):
                yield text

    def stored(self, batch: Batch, what: str, size_bytes: int) -> StoredFile | None:
        """A file of the batch, None when nothing was written to it."""
        if not size_bytes:
            return None
        digest = hashlib.sha256(f"{batch.id}/{what}".encode()).hexdigest()[:24]
        return StoredFile(
            id=f"file-batch_output-{digest}",
            account_id=batch.account_id,
            purpose=Purpose.BATCH_OUTPUT,
            filename=f"{batch.id}_{'output' if what == 'output' else 'error'}.jsonl",
            size_bytes=size_bytes,
            created_at=self._clock.now(),
        )

    def open_new(self, batch: Batch, what: str) -> BinaryIO:
        stored = self.stored(batch, what, 1)
        if stored is None:
            raise AssertionError("a file with a byte in it has a row")
        self._files.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._files.path(stored.id).open("wb")


class _Writing:
    """The two files while they are written; used in a thread."""

    def __init__(self, finisher: Finisher, batch: Batch, stack: ExitStack) -> None:
        self._finisher = finisher
        self._batch = batch
        self._stack = stack
        self._handles: dict[str, BinaryIO] = {}
        self._input: Generator[bytes] | None = None
        self._input_at = 0
        self.output_bytes = 0
        self.error_bytes = 0

    def write(self, first: int, count: int, results: dict[int, tuple[bool, bytes]], end: BatchStatus) -> None:
        try:
            for line in range(first, first + count):
                is_failed, body = results.get(line) or (True, self._unrun(line, end))
                if is_failed:
                    self.error_bytes += self._handle("errors").write(body + b"\n")
                else:
                    self.output_bytes += self._handle("output").write(body + b"\n")
        except OSError as error:
            raise no_room(error) from error

    def close(self) -> None:
        try:
            for handle in self._handles.values():
                handle.flush()
        except OSError as error:
            raise no_room(error) from error

    def stored(self, what: str, size_bytes: int) -> StoredFile | None:
        return self._finisher.stored(self._batch, what, size_bytes)

    def _handle(self, what: str) -> BinaryIO:
        if what not in self._handles:
            self._handles[what] = self._stack.enter_context(self._finisher.open_new(self._batch, what))
        return self._handles[what]

    def _unrun(self, line: int, end: BatchStatus) -> bytes:
        code, message = _UNRUN[end]
        return wire.unrun(self._custom_id(line), call_id(self._batch.id, line, 0), code, message)

    def _custom_id(self, line: int) -> str:
        """From the input, which is read on from where it was read last."""
        if self._input is None:
            self._input = self._finisher.open_input(self._batch)
            self._stack.callback(self._input.close)
        for text in self._input:
            self._input_at += 1
            if self._input_at > line:
                return msgspec.json.decode(text, type=_Named).custom_id
        return ""


class _Named(msgspec.Struct):
    custom_id: str
