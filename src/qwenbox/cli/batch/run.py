"""This is where `qwenbox batch run` takes its options, minds Ctrl+C and says what became of it."""

import shlex
import signal
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import anyio
import msgspec
import typer

from qwenbox.cli.batch import address
from qwenbox.cli.batch.job import Changed, Job, Order, Outcome
from qwenbox.cli.batch.progress import Show, money
from qwenbox.cli.batch.running import Runner
from qwenbox.cli.batch.spool import Pieces, Requests
from qwenbox.cli.batch.state import MOST_LINES, StateFile
from qwenbox.cli.console import err, settings, told
from qwenbox.client.batch_input import CHAT, BadInput, Recipe, Shape, sniffed
from qwenbox.client.batches import open_batches
from qwenbox.terms.errors import ApiError, ErrorKind

BaseUrl = Annotated[
    str,
    typer.Option(
        "--base-url",
        help="Compatible base URL; nothing: QWENBOX_BASE_URL, OPENAI_BASE_URL or DASHSCOPE_HTTP_BASE_URL, else the box of your settings.",
        show_default=False,
    ),
]
Key = Annotated[
    str,
    typer.Option(
        "--key", help="API key; nothing: the variable that belongs to the address, such as DASHSCOPE_API_KEY.", show_default=False
    ),
]
_FAILED, _BAD_INPUT, _INTERRUPTED = 1, 2, 130
_SECOND_S = 4.0
# Which option helps where something is missing.
_HINTS = {
    "model": "say --model",
    "column": "say --column NAME, or --prompt 'a text with {NAME}'",
    "encoding": "say --encoding gb18030, or what it was written with",
}


class _Interrupted(Exception):
    """Ctrl+C, or a request to end. wants_cancel: once more, or as the option says."""

    def __init__(self, *, wants_cancel: bool) -> None:
        super().__init__()
        self.wants_cancel = wants_cancel


def run(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="JSONL, text, CSV or TSV; - is standard input.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where answers go: JSONL, or a table when it ends in .csv or .tsv.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="For lines that name none; nothing: your first model.", show_default=False)
    ] = "",
    prompt: Annotated[str, typer.Option("--prompt", help="Template with {columns}, e.g. 'Translate: {text}'.", show_default=False)] = "",
    column: Annotated[str, typer.Option("--column", help="The column or field that holds the prompt.", show_default=False)] = "",
    system: Annotated[str, typer.Option("--system", "-s", help="System prompt of each prompt.", show_default=False)] = "",
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.", show_default=False)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Ask for JSON objects; the prompt must say the word.")] = False,
    param: Annotated[list[str] | None, typer.Option("--param", metavar="NAME=JSON", help="Another field of each request.")] = None,
    endpoint: Annotated[str, typer.Option(help="Of lines that name no url.")] = CHAT,
    shape: Annotated[Shape | None, typer.Option("--format", help="Of the input; nothing: by its name.", show_default=False)] = None,
    encoding: Annotated[str, typer.Option(help="Of the input, e.g. gb18030. Output is UTF-8.")] = "utf-8",
    errors: Annotated[Path | None, typer.Option("--errors", help="Also write the lines that failed here.", show_default=False)] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Write the service's own result lines, in order.")] = False,
    costs: Annotated[bool, typer.Option("--costs/--no-costs", help="Each line's cost, by its receipt; only boxes have them.")] = True,
    window: Annotated[str, typer.Option(help="How long it may take: 24h to 336h, or 1d to 14d.")] = "24h",
    lines_per_batch: Annotated[int, typer.Option(min=1, max=MOST_LINES, help="A larger input becomes several batches.")] = MOST_LINES,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Once done: ask what failed again, and only that.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget the run noted beside the output; its open batches are cancelled.")
    ] = False,
    cancel_on_interrupt: Annotated[bool, typer.Option("--cancel-on-interrupt", help="Ctrl+C cancels the batches.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but what went wrong.")] = False,
    base_url: BaseUrl = "",
    key: Key = "",
) -> None:
    """Ask many prompts as a batch, at half price, and write the answers in the order of the input.

    The input is OpenAI's batch lines, request bodies, `{"prompt": …}`, a prompt per line, or a table.
    The same command again goes on where it was, whatever ended it, and pays nothing twice: `OUTPUT.state` remembers.
    Exit status: 0, 1 when lines failed, 2 for an input or options that cannot be run, 130 after Ctrl+C.

    Examples:

    `qwenbox batch run questions.txt -o answers.jsonl -m qwen-plus`

    `qwenbox batch run reviews.csv -o rated.csv --prompt 'One word, good or bad: {review}' --max-tokens 3 --temperature 0`

    `qwenbox batch run requests.jsonl -o results.jsonl --raw --errors failed.jsonl`

    `cat 名单.txt | qwenbox batch run - -o out.jsonl --encoding gb18030 --system '翻译成英文'`

    `qwenbox batch run in.jsonl -o out.jsonl --retry-failed`
    """
    config = settings()
    with told():
        place = address.found(config, base_url, key)
    recipe = Recipe(
        model=model or (config.model[0].name if place.is_own and config.model and config.model[0].name != "*" else ""),
        column=column,
        template=prompt,
        system=system,
        endpoint=endpoint,
        temperature=temperature,
        max_tokens=max_tokens,
        is_json=as_json,
        extra=_extra(param or []),
    )
    with _opened(source, output) as handle:
        order = Order(
            output=output,
            errors=errors,
            shape=shape or _sniffed(source, handle),
            encoding=encoding,
            recipe=recipe,
            window=window,
            most_lines=lines_per_batch,
            is_raw=raw,
            has_costs=costs,
            retries_failed=retry_failed,
            is_restarted=restart,
            is_quiet=quiet,
        )
        file = StateFile(output)
        with told(), _disk_told(), file.lock(), Pieces(output.parent) as pieces:
            job = Job(order, place, config.prices, file)
            requests = _begun(job, handle, pieces)
            _finish(job, requests, cancels=cancel_on_interrupt)


def _begun(job: Job, handle: BinaryIO, pieces: Pieces) -> Requests:
    try:
        return job.begin(handle, pieces)
    except BadInput as error:
        err.print("Nothing was sent: the input cannot be run.", style="red")
        for fault in error.faults:
            hint = _HINTS.get(fault.missing, "")
            err.print(f"{fault}; {hint}" if hint else str(fault), markup=False)
        raise typer.Exit(_BAD_INPUT) from error
    except Changed as error:
        err.print(str(error), style="red", markup=False)
        raise typer.Exit(_BAD_INPUT) from error


def _finish(job: Job, requests: Requests, *, cancels: bool) -> None:
    show = Show(job.state.parts, is_quiet=job.order.is_quiet)
    try:
        with show:
            outcome = anyio.run(_work, job, requests, show, cancels)
    except _Interrupted as interrupted:
        _leave(job, wants_cancel=interrupted.wants_cancel, is_asked=not cancels)
        raise typer.Exit(_INTERRUPTED) from interrupted
    except ApiError as error:
        if any(part.batch_id for part in job.state.parts):
            _say_how_to_go_on("What was sent goes on without this command.")
        if error.kind is ErrorKind.OVERLOADED and job.place.is_own:
            raise ApiError(error.kind, f"{error.message} Start a box: qwenbox serve") from error
        raise
    if not job.order.is_quiet:
        _tell(outcome, job.order)
    if outcome.failed:
        for failure in outcome.failures:
            err.print(failure, markup=False)
        more = outcome.failed - len(outcome.failures)
        if more > 0 and outcome.failures:
            err.print(f"… and {more:,} more")
        raise typer.Exit(_FAILED)


async def _work(job: Job, requests: Requests, show: Show, cancels: bool) -> Outcome:
    """Raises _Interrupted. On a terminal a second Ctrl+C within a few seconds wants the batches cancelled."""
    outcome: Outcome | None = None
    failure: ApiError | None = None
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_batches(job.place.address, job.place.key) as client, anyio.create_task_group() as group:

            async def watch() -> None:
                async for _ in signals:
                    group.cancel_scope.cancel()
                    return

            group.start_soon(watch)
            try:
                outcome = await job.work(client, requests, show)
            except ApiError as error:
                failure = error  # raised outside of the group, which would wrap it
            group.cancel_scope.cancel()
        if outcome is not None:
            return outcome
        if failure is not None:
            raise failure
        if cancels or not err.is_terminal or not any(part.batch_id and not part.is_over for part in job.state.parts):
            raise _Interrupted(wants_cancel=cancels)
        show.stage(f"Stopping; the batches go on. Ctrl+C once more within {_SECOND_S:g} s to cancel them.")
        with anyio.move_on_after(_SECOND_S):
            async for _ in signals:
                raise _Interrupted(wants_cancel=True)
        raise _Interrupted(wants_cancel=False)


def _leave(job: Job, *, wants_cancel: bool, is_asked: bool) -> None:
    open_ids = [part.batch_id for part in job.state.parts if part.batch_id and not part.is_over]
    unsure = any(part.is_creating for part in job.state.parts)
    if wants_cancel and open_ids and (not is_asked or typer.confirm(f"Cancel {len(open_ids)} running batch(es)?", err=True)):
        cancelled = anyio.run(_cancel, job)
        err.print(f"Cancelling {', '.join(cancelled) or 'nothing: all are over'}. What was answered before is paid; to get it:")
        _say_how_to_go_on("")
        return
    if open_ids:
        err.print(f"Still running: {', '.join(open_ids)}. To cancel: qwenbox batch cancel {' '.join(open_ids)}", markup=False)
    text = "Interrupted while a batch was asked for; it may be there." if unsure else "Interrupted. Nothing is lost, nothing is paid twice."
    _say_how_to_go_on(text)


async def _cancel(job: Job) -> list[str]:
    async with open_batches(job.place.address, job.place.key) as client:
        return await Runner(client, StateFile(job.order.output), job.state, lambda batches: None).cancel()


def _say_how_to_go_on(text: str) -> None:
    err.print(f"{text} The same command goes on from here:\n  {_command()}".strip(), markup=False)


def _command() -> str:
    """As it was given, without a key."""
    words, shown = iter(sys.argv[1:]), list[str]()
    for word in words:
        if word == "--key":
            next(words, None)
        elif not word.startswith("--key="):
            shown.append(word)
    return shlex.join(["qwenbox", *shown])


def _tell(outcome: Outcome, order: Order) -> None:
    if outcome.was_done:
        err.print(
            f"{order.output} was finished before: {outcome.total:,} lines, {outcome.failed:,} failed. Nothing was sent.", markup=False
        )
        if outcome.failed:
            err.print("To ask those again: --retry-failed")
        return
    parts = [f"{outcome.total - outcome.failed:,} of {outcome.total:,} answered"]
    parts += [f"{outcome.failed:,} failed"] if outcome.failed else []
    parts += [f"{outcome.input_tokens:,} tokens in, {outcome.output_tokens:,} out"]
    if outcome.costs is not None:
        parts.append(f"cost {money(outcome.costs)}")
    elif any((outcome.estimated or {}).values()):
        parts.append(f"cost not told by this service; about {money(outcome.estimated or {})} by the price book here")
    err.print(f"{order.output}: {' · '.join(parts)}", markup=False)


@contextmanager
def _disk_told() -> Generator[None]:
    try:
        yield
    except OSError as error:
        err.print(f"{error.filename or 'The disk'}: {error.strerror or error}", style="red", markup=False)
        raise typer.Exit(_FAILED) from error


@contextmanager
def _opened(source: str, output: Path) -> Generator[BinaryIO]:
    """The input, which can be read twice."""
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    if source != "-":
        try:
            handle = Path(source).open("rb")  # noqa: SIM115 (closed below; what goes wrong later is none of this)
        except OSError as error:
            raise typer.BadParameter(f"{source} cannot be read: {error.strerror}", param_hint="INPUT") from error
        with handle:
            yield handle
        return
    with tempfile.TemporaryFile(dir=output.parent) as handle:
        while data := sys.stdin.buffer.read(1024 * 1024):
            handle.write(data)
        handle.seek(0)
        yield handle


def _sniffed(source: str, handle: BinaryIO) -> Shape:
    head = handle.read(4096)
    handle.seek(0)
    return sniffed("" if source == "-" else Path(source).name, head)


def _extra(params: list[str]) -> dict[str, msgspec.Raw]:
    """NAME=JSON; what is no JSON is a text."""
    found: dict[str, msgspec.Raw] = {}
    for param in params:
        name, mark, value = param.partition("=")
        if not mark or not name:
            raise typer.BadParameter(f"{param!r} is not NAME=JSON", param_hint="--param")
        try:
            decoded = msgspec.json.decode(value.encode())
        except msgspec.DecodeError:
            decoded = value
        found[name] = msgspec.Raw(msgspec.json.encode(decoded))
    return found
