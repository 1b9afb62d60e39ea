"""This is where the box is started: settings, first-run weights, banner, server."""

import gc
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Annotated

import anyio
import typer
import uvicorn
from msgspec.structs import replace
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from qwenbox import __version__
from qwenbox.app.box import Box, open_box
from qwenbox.app.console import box_address
from qwenbox.app.parent import Parent, open_parent
from qwenbox.cli.console import err, out, settings, told
from qwenbox.cli.pull import pull_missing
from qwenbox.config import Config, decode
from qwenbox.server.connection import OnePieceProtocol
from qwenbox.telemetry.logs import set_up
from qwenbox.terms.caller import Compat
from qwenbox.terms.engine import HealthState
from qwenbox.workers.fork import Forked, fork_workers
from qwenbox.workers.link import Link
from qwenbox.workers.parent import Crew
from qwenbox.workers.port import spread
from qwenbox.workers.seat import Seat

_STREAMS_WANTED = 65_536

# Seconds after the end of `drain_s`, for telling clients whose answers still ran.
_FAREWELL_S = 2


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would raise the signal again before the box had closed its children."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (QWENBOX_HOST).", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 picks one (QWENBOX_PORT).", show_default="8000")] = None,
    profile: Annotated[str | None, typer.Option(help="Catalog to serve: laptop, echo, … (QWENBOX_PROFILE).", show_default="laptop")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer on the port (QWENBOX_WORKERS).", show_default="1")] = None,
    compat: Annotated[Compat | None, typer.Option(help="documented follows the document, strict the live service.")] = None,
) -> None:
    """Serve the Qwen API. The first start fetches the default weights, makes a key and prints it once.

    Stop with Ctrl+C; running answers get a few seconds to end, or a second Ctrl+C.
    """
    flags: dict[str, object] = {"server.host": host, "server.port": port, "server.workers": workers, "profile": profile, "compat": compat}
    config = settings(flags)
    set_up(config.log)
    with told():
        listener = _bind(config)
        # Port 0 has become one, which the console is told.
        config = replace(config, server=replace(config.server, port=listener.getsockname()[1]))
        _raise_file_limit()
        if config.server.workers > 1:
            _check_shared(config)
            sockets = spread(listener, config.server.workers)
            # First of all, as a pull may start threads; they wait for their parent's word.
            forked = fork_workers(sockets, run_worker)
            pull_missing(config)
            raise typer.Exit(anyio.run(_run_crew, config, sockets, forked, backend_options={"use_uvloop": True}))
        pull_missing(config)
        anyio.run(_run, config, listener, backend_options={"use_uvloop": True})


async def _run(config: Config, listener: socket.socket) -> None:
    async with open_box(config) as box:
        await answer(box, config, listener, lambda: _banner(box, config))


async def answer(box: Box, config: Config, listener: socket.socket, on_listening: Callable[[], Awaitable[None]]) -> None:
    """Serve the box on the socket until a signal, or until cancelled; then running answers get `drain_s` to end by themselves."""
    server = _Server(
        uvicorn.Config(
            box.application,
            loop="none",
            http=OnePieceProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=max(1, round(config.server.keep_alive_s)),
            timeout_graceful_shutdown=int(config.server.drain_s) + _FAREWELL_S,
        )
    )
    _settle_memory()
    # Bound since the start, so that a taken port is told before a long pull; open only now, so that nobody waits in vain.
    listener.listen(2048)
    await on_listening()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_on_signal, server, box, config.server.drain_s)
        await server.serve(sockets=[listener])
        tasks.cancel_scope.cancel()


async def _run_crew(config: Config, sockets: tuple[socket.socket, ...], forked: Sequence[Forked]) -> int:
    """The exit status."""
    has_started = False
    async with open_parent(config, worker_command, forked) as parent, anyio.create_task_group() as tasks:
        tasks.start_soon(_greet, parent, config)
        tasks.start_soon(_stop_crew_on_signal, parent.crew)
        has_started = await parent.crew.run(sockets)
        tasks.cancel_scope.cancel()
    return 0 if has_started else 1


def run_worker(listener: socket.socket, end: socket.socket) -> None:
    """What one of several workers does: answer calls until its parent says so, or is gone. end: its end of the link."""
    anyio.run(_work, listener, end, backend_options={"use_uvloop": True})


async def _work(listener: socket.socket, end: socket.socket) -> None:
    link = await Link.open(end)
    begin = await link.begin()
    if begin is None:
        return
    config = decode(begin.config)
    set_up(config.log, begin.index)
    seat = Seat(index=begin.index, count=begin.count, link=link)

    async def serving() -> None:
        link.serving()

    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            # Without its parent nobody would stop this process, nor has it engines any more.
            await link.lost()
            _end_at_last(config.server.drain_s)
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        async with open_box(config, seat=seat) as box:
            await answer(box, config, listener, serving)
        tasks.cancel_scope.cancel()
    link.close()


def _end_at_last(after_s: float) -> None:
    """End this process then, if it has not ended by itself: nobody is left who would see it hang."""
    timer = threading.Timer(after_s, os._exit, (1,))
    timer.daemon = True
    timer.start()


def worker_command(listener: int, link: int) -> list[str]:
    """How a worker is started (cli/worker.py)."""
    return [sys.executable, "-P", "-m", "qwenbox.cli.worker", str(listener), str(link)]


def _check_shared(config: Config) -> None:
    """Several workers count together through a shared store, or their owner has said that he knows they do not."""
    if config.valkey.url.reveal():
        return
    if config.limits.approximate:
        count = config.server.workers
        err.print(
            f"[yellow]Limits are approximate:[/yellow] each of {count} workers keeps 1/{count} of every limit and of free money to itself."
        )
    else:
        err.print(
            f"[red]{config.server.workers} workers need a store in which they count together.[/red] Set QWENBOX_VALKEY_URL (or url in "
            "\\[valkey]); or, if limits and budgets may be kept in equal parts by each worker for itself, approximate = true in \\[limits]."
        )
        raise typer.Exit(2)


async def _greet(parent: Parent, config: Config) -> None:
    await parent.crew.ready.wait()
    await _banner(parent, config)


async def _stop_crew_on_signal(crew: Crew) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            crew.stop()


def _settle_memory() -> None:
    """What was made at the start stays for good: looking through it again and again costs a stream pauses of tens of milliseconds.

    A call makes hundreds of objects and hardly a cycle, so the collector looks for one every 10,000 objects instead of every 700: that
    is some 5 % of a call's CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


async def _stop_on_signal(server: uvicorn.Server, box: Box, drain_s: float) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        server.should_exit = True
        with anyio.move_on_after(drain_s) as patience:
            await anext(signals)
        box.stop_answers()
        if not patience.cancelled_caught:
            # The second signal waits for their last words, and for nothing else.
            await anyio.sleep(_FAREWELL_S / 4)
            server.force_exit = True


def _bind(config: Config) -> socket.socket:
    host, port = config.server.host, config.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        err.print(f"[red]Can't listen on {host}:{port}: {error.strerror}.[/red] Another port: `qwenbox serve --port {port + 1}`.")
        raise typer.Exit(1) from error
    listener.setblocking(False)
    return listener


def _raise_file_limit() -> None:
    """Every open stream is a file; the usual soft limit of 1,024 would refuse the thousandth."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _STREAMS_WANTED if hard == resource.RLIM_INFINITY else min(hard, _STREAMS_WANTED)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _banner(box: Box | Parent, config: Config) -> None:
    host, port = config.server.host, config.server.port
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    key = box.first_key.reveal() if box.first_key else "<your key: qwenbox keys create>"
    models, missing = await _models(box)
    crew = f" · {config.server.workers} workers" if config.server.workers > 1 else ""
    head = f"[bold]qwenbox {__version__}[/bold] · profile {config.profile} · level {config.compat} · {base}{crew}"
    # Its lines are broken within the frame, which would cut them elsewhere.
    out.print(Panel(Group(head, "", _lines(models)), expand=False, border_style="cyan"), soft_wrap=False)
    # Outside the frame: a narrow terminal would cut the key there, and frames are copied along.
    out.print(f"[bold]dashscope[/bold]\nexport DASHSCOPE_HTTP_BASE_URL={base}/api/v1\nexport DASHSCOPE_API_KEY={key}")
    out.print(f"[bold]openai[/bold]\nexport OPENAI_BASE_URL={base}/compatible-mode/v1\nexport OPENAI_API_KEY={key}\n")
    if box.console is not None:
        out.print(f"[bold]console[/bold]\n{box_address(config)}{box.console}\n")
    elif config.console.enabled:
        out.print(f"[bold]console[/bold]\nclosed on {host} until an administrator has a password; {base}/console says how\n")
    if missing:
        out.print(f"[yellow]Not here (`qwenbox pull NAME` fetches one):[/yellow] {', '.join(missing)}")
    for name, trouble in (await _troubles(box)).items():
        out.print(f"[bold yellow]{name}:[/bold yellow] {escape(trouble)}")
    if box.first_key and not config.api_key:
        out.print("The key is stored hashed and not shown again. More keys: `qwenbox keys create`.")
    if config.recording.enabled:
        days = config.recording.keep_days
        out.print(f"[bold red]RECORDING:[/bold red] every prompt and answer is kept for {days} days (\\[recording], qwenbox.toml).")
    if config.testing.clock:
        out.print("[bold red]FOR TESTING ONLY:[/bold red] whoever has the admin key can move this box's time (QWENBOX_TESTING).")


async def _models(box: Box | Parent) -> tuple[dict[str, str], list[str]]:
    """What answers for each model, by its name; and the models whose weights are not here."""
    found: dict[str, str] = {}
    missing: list[str] = []
    for model in box.catalog.every():
        for deployment in [*filter(attrgetter("is_here"), model.deployments), *model.deployments][:1]:
            health = await deployment.engine.health()
            if health.state is HealthState.MISSING:
                missing.append(model.entry.name)
                continue
            is_down = health.state is HealthState.DOWN
            told = f"[yellow]cannot be asked: {deployment.name}, see below[/yellow]" if is_down else deployment.engine.facts.weights
            found[model.entry.name] = told
    return found, missing


def _lines(models: dict[str, str]) -> Table:
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    for name, answering in models.items():
        lines.add_row(f"  {name}", answering)
    return lines


async def _troubles(box: Box | Parent) -> dict[str, str]:
    """What engines that cannot be asked say about it, by name."""
    engines = {deployment.name: deployment.engine for model in box.catalog.every() for deployment in model.deployments}
    found = {name: await engine.health() for name, engine in engines.items()}
    return {name: health.detail for name, health in found.items() if health.state is HealthState.DOWN}
