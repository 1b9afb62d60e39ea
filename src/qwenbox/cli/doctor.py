"""This is where a box that does not work is looked into: what is wrong, and what to do about it."""

import socket
from collections.abc import AsyncGenerator
from typing import Annotated

import anyio
import msgspec
import typer

from qwenbox.cli.box import Address, Key, RunningBox, configured_address, open_running_box, refusal
from qwenbox.cli.console import emit, out, settings
from qwenbox.cli.pull import wanted_weights, weights_of
from qwenbox.client.system import Finding, Verdict
from qwenbox.clock import SystemClock
from qwenbox.config import Config
from qwenbox.gateway.catalog import ANY_MODEL
from qwenbox.gateway.speed import measure
from qwenbox.server.admin import findings
from qwenbox.terms.errors import ApiError
from qwenbox.weights.entry import Presence
from qwenbox.weights.store import WeightsStore


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    version: str = ""


class _Ready(msgspec.Struct, frozen=True, kw_only=True):
    models: dict[str, list[str]] = {}


_MARKS: dict[Verdict, str] = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "failed": "[red]✗[/red]"}


def doctor(
    deep: Annotated[bool, typer.Option(help="Hash all weights that are here, seconds per gigabyte.")] = False,
    speed: Annotated[bool, typer.Option(help="Let every model that is ready and writes write 64 tokens, and measure it.")] = False,
    key: Key = "",
    address: Address = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Check this machine, the weights and a running box; say what to do. Exit status 1 if something is broken.

    Sources of weights are asked only when weights are missing, and then only whether they have them.
    """
    config = settings()
    found: list[Finding] = []

    async def run() -> None:
        async for finding in _findings(config, _Wishes(deep=deep, speed=speed, key=key, address=address)):
            found.append(finding)
            if not as_json:
                _print(finding)

    anyio.run(run)
    if as_json:
        emit(found)
    if any(finding.verdict == "failed" for finding in found):
        raise typer.Exit(1)


class _Wishes(msgspec.Struct, frozen=True, kw_only=True):
    deep: bool
    speed: bool
    key: str
    address: str


def _print(finding: Finding) -> None:
    out.print(f"{_MARKS[finding.verdict]} {finding.check:<9} ", end="")
    out.print(finding.found, markup=False)
    if finding.todo:
        out.print(f"            → {finding.todo}", markup=False)


async def _findings(config: Config, wishes: _Wishes) -> AsyncGenerator[Finding]:
    yield _home(config)
    needs_engine = any(weights_of(config, model) for model in config.model)
    if needs_engine:
        yield findings.engine()
    async for finding in _weights(config, wishes.deep):
        yield finding
    async with open_running_box(config, wishes.address, wishes.key) as box:
        running = await _box(config, box, wishes.address)
        yield running
        if running.verdict != "ok" or running.todo:
            return
        key = await _key(config, box, wishes.key)
        yield key
        ready = await _ready(box)
        for finding in ready:
            yield finding
        if wishes.speed and key.verdict == "ok":
            wordless = {model.name for model in config.model if not model.card.is_text}
            for name in [finding.check for finding in ready if finding.verdict == "ok" and finding.check not in wordless]:
                yield await _speed(box, name)


def _home(config: Config) -> Finding:
    store = WeightsStore(config.home, config.weights, config.store)
    names = {name for model in config.model for name in weights_of(config, model)}
    return findings.home(config.home, findings.needed_bytes(store, names, config.store.free_space_margin_bytes))


async def _weights(config: Config, deep: bool) -> AsyncGenerator[Finding]:
    """One finding per set of weights of the catalog; the default model's are the ones a box can't do without."""
    store = WeightsStore(config.home, config.weights, config.store)
    users: dict[str, list[str]] = {}
    for model in config.model:
        for name in weights_of(config, model):
            users.setdefault(name, []).append(model.name)
    for name, models in users.items():
        title = f"{store.entry(name).title} ({', '.join(models)})"
        state = store.state(name)
        match state.presence:
            case Presence.HERE if deep and not await store.verify(name):
                todo = f"Fetch it anew: delete {store.place(name)} and run qwenbox pull {models[0]}"
                yield Finding(check="weights", verdict="failed", found=f"{title}: the sha256 is wrong", todo=todo)
            case Presence.HERE:
                checked = "hashed now" if deep else "size and time as when they were hashed"
                yield Finding(check="weights", verdict="ok", found=f"{title}: here, {checked}")
            case Presence.FETCHING:
                share = f" {state.fraction:.0%}" if state.fraction is not None else ""
                yield Finding(check="weights", verdict="ok", found=f"{title}: being fetched{share}")
            case Presence.MISSING | Presence.PARTIAL:
                yield await _missing(config, store, name, title)


async def _missing(config: Config, store: WeightsStore, name: str, title: str) -> Finding:
    answers = await store.probe(name)
    able = [source.value for source, reason in answers.items() if not reason]
    found = f"{title}: not here; " + (f"{', '.join(able)} would bring them" if able else "no source has them")
    if able:
        return Finding(check="weights", verdict="warning", found=found, todo=f"qwenbox pull {name}")
    reasons = "; ".join(f"{source}: {reason}" for source, reason in answers.items())
    todo = f"Bring {store.entry(name).file} here and run: qwenbox pull {name} --from PATH ({reasons})"
    is_default = name in wanted_weights(config, None)
    return Finding(check="weights", verdict="failed" if is_default else "warning", found=found, todo=todo)


async def _box(config: Config, box: RunningBox, address: str) -> Finding:
    """Our box, a stranger on its port, or nobody."""
    try:
        reply = await box.get("/")
        index = msgspec.json.decode(reply.body, type=_Index)
    except msgspec.DecodeError:
        index = _Index()
    except ApiError:
        if address or _is_taken(config):
            return _stranger(config, address)
        todo = "qwenbox serve"
        return Finding(check="box", verdict="ok", found=f"none is running; port {config.server.port} is free", todo=todo)
    if index.name != "qwenbox":
        return _stranger(config, address)
    return Finding(check="box", verdict="ok", found=f"{box.name} answers, version {index.version}")


def _stranger(config: Config, address: str) -> Finding:
    if address:
        return Finding(check="box", verdict="failed", found=f"no box answers at {address}", todo="Start it, or correct --url.")
    found = f"port {config.server.port} is taken by another program"
    todo = f"Stop that program, or choose another port: qwenbox serve --port {config.server.port + 1}"
    return Finding(check="box", verdict="failed", found=found, todo=todo)


def _is_taken(config: Config) -> bool:
    host, port = configured_address(config).removeprefix("http://").rsplit(":", 1)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2.0):
            return True
    except OSError:
        return False


async def _key(config: Config, box: RunningBox, key: str) -> Finding:
    if not key and config.api_key is None:
        todo = "Export DASHSCOPE_API_KEY as the banner showed it, or: qwenbox keys create"
        return Finding(check="key", verdict="warning", found="none given, so none was tried", todo=todo)
    try:
        reply = await box.get("/v1/models")
    except ApiError as error:
        return Finding(check="key", verdict="failed", found=error.message, todo="Look at the box's log.")
    if reply.status == 200:
        return Finding(check="key", verdict="ok", found="the box takes it")
    found = f"HTTP {reply.status}: {refusal(reply.body)}"
    return Finding(check="key", verdict="failed", found=found, todo="Make one: qwenbox keys create. See them: qwenbox keys list")


async def _ready(box: RunningBox) -> list[Finding]:
    """What every model of the running box would do with a call now."""
    try:
        ready = msgspec.json.decode((await box.get("/ready")).body, type=_Ready)
    except (ApiError, msgspec.DecodeError) as error:
        return [Finding(check="ready", verdict="failed", found=f"/ready: {error}", todo="Look at the box's log.")]
    told: list[Finding] = []
    missing: list[str] = []
    for name, states in ready.models.items():
        if name == ANY_MODEL:
            continue
        finding = findings.model(name, states)
        if finding.code == "model_missing":
            missing.append(name)
        else:
            told.append(finding)
    if missing:
        found = f"not here: {', '.join(missing)}"
        told.append(Finding(check="ready", verdict="warning", found=found, todo="qwenbox pull NAME, for those you want"))
    return told


async def _speed(box: RunningBox, model: str) -> Finding:
    try:
        speed = await measure(box.chat, model, SystemClock())
    except ApiError as error:
        return Finding(check="speed", verdict="failed", found=f"{model}: {error.message}", todo="Look at the box's log.")
    found = f"{model}: {speed.decode_tokens_s or 0.0:.1f} tokens/s, first one after {speed.ttft_s:.2f} s (a load included, if it was idle)"
    if speed.prefill_tokens_s is not None:
        found += f", {speed.input_tokens} tokens of prompt read at {speed.prefill_tokens_s:.0f} tokens/s"
    return Finding(check="speed", verdict="ok", found=found)
