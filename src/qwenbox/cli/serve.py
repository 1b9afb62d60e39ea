"""This is where the box is started: settings, first-run weights, banner, server."""

import gc
import logging
import resource
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import anyio
import typer
import uvicorn
from rich.panel import Panel

from qwenbox import __version__
from qwenbox.app import Box, open_box
from qwenbox.cli.console import err, out, settings, told
from qwenbox.cli.pull import pull_missing
from qwenbox.config import Config
from qwenbox.terms.caller import Compat
from qwenbox.terms.engine import HealthState

_STREAMS_WANTED = 65_536


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: it would raise the signal again before the box had closed its children."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (QWENBOX_HOST).", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 picks one (QWENBOX_PORT).", show_default="8000")] = None,
    profile: Annotated[str | None, typer.Option(help="Catalog to serve: laptop, echo, … (QWENBOX_PROFILE).", show_default="laptop")] = None,
    compat: Annotated[Compat | None, typer.Option(help="documented follows the document, strict the live service.")] = None,
) -> None:
    """Serve the Qwen API. The first start fetches the default weights, makes a key and prints it once.

    Stop with Ctrl+C; running answers get a few seconds to end.
    """
    config = settings({"server.host": host, "server.port": port, "profile": profile, "compat": compat})
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("qwenbox").setLevel(logging.INFO)
    with told():
        listener = _bind(config)
        _raise_file_limit()
        pull_missing(config)
        anyio.run(_run, config, listener, backend_options={"use_uvloop": True})


async def _run(config: Config, listener: socket.socket) -> None:
    async with open_box(config) as box:
        server = _Server(
            uvicorn.Config(
                box.application,
                loop="none",
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=int(config.server.drain_s),
            )
        )
        _settle_memory()
        # Bound since the start, so that a taken port is told before a long pull; open only now, so that nobody waits in vain.
        listener.listen(2048)
        await _banner(box, config, listener)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_on_signal, server)
            await server.serve(sockets=[listener])
            tasks.cancel_scope.cancel()


def _settle_memory() -> None:
    """What was made at the start stays for good: looking through it again and again costs a stream pauses of tens of milliseconds."""
    gc.collect()
    gc.freeze()


async def _stop_on_signal(server: uvicorn.Server) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            # The second signal does not wait for running answers.
            server.force_exit = server.should_exit
            server.should_exit = True


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


async def _banner(box: Box, config: Config, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    key = box.first_key.reveal() if box.first_key else "<your key: qwenbox keys create>"
    models = "\n".join([f"  {name:<12} {state}" for name, state in await _models(box)])
    head = f"[bold]qwenbox {__version__}[/bold] · profile {config.profile} · level {config.compat} · {base}"
    out.print(Panel(f"{head}\n\n{models}", expand=False, border_style="cyan"))
    # Outside the frame: a narrow terminal would cut the key there, and frames are copied along.
    out.print(f"[bold]dashscope[/bold]\nexport DASHSCOPE_HTTP_BASE_URL={base}/api/v1\nexport DASHSCOPE_API_KEY={key}")
    out.print(f"[bold]openai[/bold]\nexport OPENAI_BASE_URL={base}/compatible-mode/v1\nexport OPENAI_API_KEY={key}\n")
    if box.first_key and not config.api_key:
        out.print("The key is stored hashed and not shown again. More keys: `qwenbox keys create`.")


async def _models(box: Box) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for model in box.catalog.every():
        for deployment in model.deployments[:1]:
            health = await deployment.engine.health()
            is_here = health.state is not HealthState.MISSING
            missing = f"[yellow]not here: qwenbox pull {model.entry.name}[/yellow]"
            lines.append((model.entry.name, deployment.engine.facts.weights if is_here else missing))
    return lines
