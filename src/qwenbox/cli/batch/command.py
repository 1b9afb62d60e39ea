"""This is where batches are run, listed, shown and cancelled from the command line."""

import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import anyio
import msgspec
import typer
from rich.table import Table
from rich.text import Text

from qwenbox.cli.administration import Json
from qwenbox.cli.amounts import units
from qwenbox.cli.batch import address
from qwenbox.cli.batch.run import BaseUrl, Key, run
from qwenbox.cli.console import emit, err, lay_out, out, settings, told
from qwenbox.client import batch_results
from qwenbox.client.batches import Batch, BatchesClient, open_batches

T = TypeVar("T")

app = typer.Typer(
    help="Many requests at half price, in the background: of a box, or of any compatible service.\n\n"
    "    qwenbox batch run prompts.txt -o answers.jsonl\n\n"
    "    qwenbox batch list\n\n"
    "    qwenbox batch cancel batch_0123",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.command("run")(run)

_EXAMPLES = 5
Id = Annotated[str, typer.Argument(metavar="ID", help="Such as batch_fa05d570-…", show_default=False)]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that failed alike. message: of the first of them."""

    code: str
    count: int
    message: str
    custom_ids: tuple[str, ...]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    batch: Batch
    failures: tuple[Failure, ...]


@app.command("list")
def list_batches(
    status: Annotated[str, typer.Option(help="Only these, separated by commas, e.g. in_progress,failed.", show_default=False)] = "",
    name: Annotated[str, typer.Option(help="Only with this in their name (ds_name).", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: Json = False,
    base_url: BaseUrl = "",
    key: Key = "",
) -> None:
    """List batches, newest first.

    Example: `qwenbox batch list --status in_progress`
    """

    async def work(client: BatchesClient) -> list[Batch]:
        found: list[Batch] = []
        async for batch in client.every(name=name, statuses=status):
            found.append(batch)
            if len(found) >= limit:
                break
        return found

    batches = _ask(base_url, key, work)
    if as_json:
        emit(batches)
        return
    if not batches:
        out.print("No batches.")
        return
    table = Table("batch", "status", box=None)
    for column in ("done", "failed", "total", "age"):
        table.add_column(column, justify="right")
    table.add_column("model")
    table.add_column("cost", justify="right")
    table.add_column("name")
    for batch in batches:
        counts = batch.counts
        numbers = (f"{number:,}" for number in (counts.completed, counts.failed, counts.total))
        texts = (Text(batch.model or ""), _cost(batch), Text(batch.description or batch.name))
        table.add_row(batch.id, batch.status, *numbers, _age(batch), *texts)
    lay_out(table)


@app.command()
def show(batch_id: Id, as_json: Json = False, base_url: BaseUrl = "", key: Key = "") -> None:
    """Show one batch: how it stands, what it cost, and what failed in it.

    Example: `qwenbox batch show batch_fa05d570-fa04-4935-8b80-2b9c1a4b3ee4`
    """

    async def work(client: BatchesClient) -> Shown:
        batch = await client.get(batch_id)
        return Shown(batch=batch, failures=await _failures(client, batch))

    shown = _ask(base_url, key, work)
    if as_json:
        emit(shown)
        return
    table = Table("", "", box=None, show_header=False)
    for name, value in _lines(shown.batch):
        table.add_row(name, Text(value))
    lay_out(table)
    for failure in shown.failures:
        ids = ", ".join(failure.custom_ids) + (", …" if failure.count > len(failure.custom_ids) else "")
        where = f" ({ids})" if ids else ""
        out.print(f"{failure.count:,} × {failure.code}{where}: {failure.message}", markup=False)


@app.command()
def cancel(
    batch_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="One or more.", show_default=False)],
    base_url: BaseUrl = "",
    key: Key = "",
) -> None:
    """Cancel batches: lines that run go on to their end, no other begins; what was answered stays.

    Example: `qwenbox batch cancel batch_fa05d570-fa04-4935-8b80-2b9c1a4b3ee4`
    """

    async def work(client: BatchesClient) -> None:
        for batch_id in batch_ids:
            batch = await client.cancel(batch_id)
            err.print(f"{batch.id} is {batch.status}.", markup=False)

    _ask(base_url, key, work)


def _ask(base_url: str, key: str, work: Callable[[BatchesClient], Awaitable[T]]) -> T:
    config = settings()

    async def asked() -> T:
        place = address.found(config, base_url, key)
        async with open_batches(place.address, place.key) as client:
            return await work(client)

    with told():
        return anyio.run(asked)


async def _failures(client: BatchesClient, batch: Batch) -> tuple[Failure, ...]:
    """By code, most frequent first."""
    faults = (batch.errors.data if batch.errors else None) or ()
    found = [(fault.code or "", fault.message or "", f"line {fault.line}" if fault.line else "") for fault in faults]
    if batch.error_file_id:
        with tempfile.TemporaryFile() as target:
            await client.content(batch.error_file_id, target)
            target.seek(0)
            for line in target:
                row = batch_results.row(0, "", line)
                if row.error is not None:
                    found.append((row.error.code, row.error.message, batch_results.custom_id(line)))
    failures: list[Failure] = []
    for code, count in Counter(code for code, _, _ in found).most_common():
        alike = [(message, where) for each, message, where in found if each == code]
        examples = tuple(where for _, where in alike[:_EXAMPLES] if where)
        failures.append(Failure(code=code, count=count, message=alike[0][0], custom_ids=examples))
    return tuple(failures)


def _lines(batch: Batch) -> list[tuple[str, str]]:
    counts, usage = batch.counts, batch.usage
    times = ("created_at", "in_progress_at", "completed_at", "failed_at", "expired_at", "cancelled_at", "expires_at")
    lines = [
        ("batch", batch.id),
        ("name", batch.name),
        ("description", batch.description),
        ("status", batch.status),
        ("endpoint", batch.endpoint),
        ("model", batch.model or ""),
        ("lines", f"{counts.completed:,} done, {counts.failed:,} failed, {counts.total:,} in all"),
        ("tokens", f"{usage.input_tokens:,} in, {usage.output_tokens:,} out" if usage else ""),
        ("cost", _cost(batch)),
        *((name.removesuffix("_at").replace("_", " "), _time(getattr(batch, name))) for name in times),
        ("input file", batch.input_file_id),
        ("output file", batch.output_file_id or ""),
        ("error file", batch.error_file_id or ""),
    ]
    return [(name, value) for name, value in lines if value]


def _time(at: int | None) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at else ""


def _cost(batch: Batch) -> str:
    return f"{units(batch.qwenbox.cost_micros)} {batch.qwenbox.currency}" if batch.qwenbox else ""


def _age(batch: Batch) -> str:
    seconds_s = max(0, int(time.time()) - batch.created_at)
    for size_s, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds_s >= size_s:
            return f"{seconds_s // size_s}{unit}"
    return f"{seconds_s}s"
