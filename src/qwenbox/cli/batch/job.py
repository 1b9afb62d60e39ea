"""This is where `qwenbox batch run` has its course: read, compare with what was noted, send, wait, write."""

import hashlib
import os
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

import anyio
import msgspec

from qwenbox.cli.batch import progress, state, writing
from qwenbox.cli.batch.address import Place
from qwenbox.cli.batch.progress import Show
from qwenbox.cli.batch.running import Runner
from qwenbox.cli.batch.spool import Pieces, Requests
from qwenbox.cli.batch.state import State, StateFile
from qwenbox.client import batch_results
from qwenbox.client.batch_input import Asked, Reading, Recipe, Shape
from qwenbox.client.batches import BatchesClient
from qwenbox.gateway.prices import Prices
from qwenbox.terms.call import Lane
from qwenbox.terms.errors import ApiError

_FAILURES_KEPT = 5
# Receipts asked for at a time, and together.
_RECEIPTS, _WINDOW = 8, 256


class Changed(Exception):
    """The run that is noted beside the output is another one; the message says in what."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked of the command. errors: None writes no such file. has_costs: ask for each line's receipt, where there are any."""

    output: Path
    errors: Path | None
    shape: Shape
    encoding: str
    recipe: Recipe
    window: str
    most_lines: int
    is_raw: bool
    has_costs: bool
    retries_failed: bool
    is_restarted: bool
    is_quiet: bool

    def options(self, address: str) -> dict[str, str]:
        """What makes the requests what they are, by the names people know."""
        recipe = self.recipe
        values: dict[str, object] = {
            "--base-url": address,
            "--format": self.shape.value,
            "--encoding": self.encoding,
            "--model": recipe.model,
            "--column": recipe.column,
            "--prompt": recipe.template,
            "--system": recipe.system,
            "--endpoint": recipe.endpoint,
            "--temperature": recipe.temperature,
            "--max-tokens": recipe.max_tokens,
            "--json": recipe.is_json,
            "--param": recipe.extra,
            "--window": self.window,
            "--lines-per-batch": self.most_lines,
        }
        return {name: msgspec.json.encode(value).decode() for name, value in values.items()}


class Outcome(msgspec.Struct, kw_only=True):
    """failures: the first few, told in words. costs: by currency, None when nobody told; estimated: by the price book here."""

    total: int
    failed: int = 0
    failures: list[str] = []
    input_tokens: int = 0
    output_tokens: int = 0
    costs: dict[str, int] | None = None
    estimated: dict[str, int] | None = None
    batch_ids: list[str] = []
    was_done: bool = False


class Job:
    """One run, while its lock is held."""

    def __init__(self, order: Order, place: Place, prices: Prices, file: StateFile) -> None:
        self.order = order
        self.place = place
        self.state: State
        self._prices = prices
        self._file = file
        self._header: tuple[str, ...] = ()

    def begin(self, source: BinaryIO, pieces: Pieces) -> Requests:
        """Read the input and find the run it belongs to, or begin one. Raises BadInput, Changed, ApiError."""
        digest = _digest(source)
        reading = Reading(source, self.order.shape, self.order.encoding, self.order.recipe)
        requests = Requests(pieces, reading)
        self._header = reading.header
        options = self.order.options(self.place.address)
        noted = self._file.load()
        changed = _changed(noted, digest, options) if noted is not None else ""
        if noted is None or self.order.is_restarted or (changed and not noted.is_begun):
            self._begin_anew(requests, digest, options, noted)
        elif changed:
            raise Changed(changed)
        else:
            self.state = noted
            if self.order.retries_failed:
                self._retry(requests)
        return requests

    async def work(self, client: BatchesClient, requests: Requests, show: Show) -> Outcome:
        """To the written output. Raises ApiError."""
        if self.state.is_done and self.order.output.exists():
            return Outcome(total=len(requests), failed=sum(count for _, count in self.state.failed), was_done=True)
        runner = Runner(client, self._file, self.state, show.update)
        runner.listen(show.notice)
        if not self.state.is_begun:
            await runner.greet()
        show.stage("Sending …")
        await runner.abandon()
        await runner.submit(requests, self.order.window)
        show.stage("")
        await runner.wait()
        show.stage("Reading the results …")
        with Pieces(self.order.output.parent) as results:
            await runner.collect(requests, results)
            outcome = await self._write(client, runner, requests, results)
        self.state.is_done = True
        self._file.save(self.state)
        return outcome

    def _begin_anew(self, requests: Requests, digest: str, options: dict[str, str], noted: State | None) -> None:
        if self.order.retries_failed:
            raise Changed(f"There is nothing to try again: {self._file.path} is not there.")
        if self.order.output.exists() and noted is None and not self.order.is_restarted:
            raise Changed(f"{self.order.output} exists already, and is of no run that is noted here. Move it away, or say --restart.")
        run_id = token_hex(6)
        old = [] if noted is None else [*noted.abandoned, *(part.batch_id for part in noted.parts if part.batch_id and not part.is_over)]
        self.state = State(
            run_id=run_id,
            begun_at=time.time(),
            input_sha256=digest,
            options=options,
            total=len(requests),
            parts=state.plan(enumerate(requests), run_id, 0, self.order.most_lines),
            abandoned=old,
        )
        self._file.save(self.state)

    def _retry(self, requests: Requests) -> None:
        """Another round for what failed; a round that is under way goes on."""
        if not self.state.is_done or not self.state.failed:
            return
        numbers = (number for first, count in self.state.failed for number in range(first, first + count))
        round_ = max(part.round for part in self.state.parts) + 1
        asked = ((number, requests[number]) for number in numbers)
        self.state.parts += state.plan(asked, self.state.run_id, round_, self.order.most_lines)
        self.state.is_done = False
        self._file.save(self.state)

    async def _write(self, client: BatchesClient, runner: Runner, requests: Requests, results: Pieces) -> Outcome:
        batches = [runner.batches[part.marker] for part in self.state.parts]
        outcome = Outcome(total=len(requests), costs=progress.costs(batches), batch_ids=[batch.id for batch in batches])
        has_costs = self.order.has_costs and any((outcome.costs or {}).values())
        failed: list[int] = []
        with ExitStack() as stack:
            write = self._writer(stack.enter_context(_whole(self.order.output)))
            errors = self.order.errors and writing.rows_to(stack.enter_context(_whole(self.order.errors)))
            for first in range(0, len(requests), _WINDOW):
                numbers = range(first, min(first + _WINDOW, len(requests)))
                raw = {number: results.get(number) or b"" for number in numbers}
                rows = [_row(requests[number], raw[number]) for number in numbers]
                if has_costs:
                    rows = await _priced(client, rows)
                for number, row in zip(numbers, rows, strict=True):
                    asked = requests[number]
                    write(asked, row, raw[number])
                    self._count(outcome, asked.model, row)
                    if row.error is not None:
                        failed.append(number)
                        if errors:
                            errors(asked, row, raw[number])
        self.state.failed = state.spans(failed)
        outcome.failed = len(failed)
        return outcome

    def _writer(self, target: BinaryIO) -> writing.Write:
        ending = self.order.output.suffix.lower()
        if ending in (".csv", ".tsv"):
            return writing.table_to(target, self._header, "\t" if ending == ".tsv" else ",")
        return writing.results_to(target) if self.order.is_raw else writing.rows_to(target)

    def _count(self, outcome: Outcome, model: str, row: batch_results.Row) -> None:
        if row.error is not None and len(outcome.failures) < _FAILURES_KEPT:
            outcome.failures.append(f"line {row.line} ({row.custom_id}): {row.error.code}: {row.error.message}")
        tokens = batch_results.usage(row)
        if tokens is None:
            return
        outcome.input_tokens += tokens.input_tokens
        outcome.output_tokens += tokens.output_tokens
        if outcome.costs is None:
            tariff = self._prices.tariff(model, self.state.begun_at)
            outcome.estimated = outcome.estimated or {}
            micros = tariff.cost_micros(tokens, Lane.BATCH)
            outcome.estimated[tariff.currency] = outcome.estimated.get(tariff.currency, 0) + micros


@contextmanager
def _whole(path: Path) -> Generator[BinaryIO]:
    """A file that takes its place when it is complete and on the disk."""
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        state.settle(new, path)
    finally:
        new.unlink(missing_ok=True)


def _digest(source: BinaryIO) -> str:
    digest = hashlib.sha256()
    while data := source.read(1024 * 1024):
        digest.update(data)
    source.seek(0)
    return digest.hexdigest()


def _changed(noted: State, digest: str, options: dict[str, str]) -> str:
    """What is not as it was, "" when all is."""
    if noted.input_sha256 != digest:
        return "The input has changed since this run was begun. Say --restart to begin anew, or give the new one another output."
    changed = [f"{name} was {noted.options.get(name)}" for name, value in options.items() if noted.options.get(name) != value]
    if changed:
        return f"The options have changed since this run was begun ({', '.join(changed)}). Say the same again, or --restart to begin anew."
    return ""


def _row(asked: Asked, result: bytes) -> batch_results.Row:
    return batch_results.row(asked.line, asked.custom_id, result)


async def _priced(client: BatchesClient, rows: Sequence[batch_results.Row]) -> list[batch_results.Row]:
    """With what each has cost, by its receipt; one without a receipt stays as it is."""
    priced = list(rows)
    limiter = anyio.CapacityLimiter(_RECEIPTS)

    async def price(place: int) -> None:
        async with limiter:
            try:
                receipt = await client.receipt(rows[place].request_id)
            except ApiError:
                return  # without its cost a result is still one
        cost = receipt.call.cost_micros - receipt.refunded_micros
        priced[place] = msgspec.structs.replace(rows[place], cost_micros=cost, currency=receipt.call.currency)

    async with anyio.create_task_group() as group:
        for place, row in enumerate(rows):
            if row.request_id:
                group.start_soon(price, place)
    return priced
