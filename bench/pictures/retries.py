"""This is where the waits between attempts are measured and drawn: `python -m bench.pictures.retries [FILE.svg]`.

A server on loopback refuses each call five times and notes when it was asked; the router and the engine in front of it are the real ones,
with the defaults of `[retries]` but for the number of attempts and the budget.
"""

import asyncio
import sys
import time
from collections import defaultdict
from pathlib import Path

import anyio

from qwenbox.engines.openai_server import OpenAiServer, OpenAiServerConfig
from qwenbox.gateway.attempts.breaker import BreakerConfig
from qwenbox.gateway.attempts.policy import RetryConfig
from qwenbox.gateway.attempts.standing import AttemptsConfig, Standings
from qwenbox.gateway.catalog import Catalog, Model, ModelEntry
from qwenbox.gateway.router import Party, Prompt, Router
from qwenbox.gateway.scheduler import SchedulerConfig
from qwenbox.remote import Remote
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.errors import ApiError
from qwenbox.terms.model import ModelCard

_CALLS = 300
_ATTEMPTS = 6
_RETRIES = RetryConfig(attempts=_ATTEMPTS, budget_share=float(_ATTEMPTS))
_TOLD_S = 1.0
_PICTURE = Path("docs/practices/retries.svg")
_REFUSAL = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n%scontent-length: 2\r\n\r\n{}"
_REFUSALS = {"500": _REFUSAL % (b"500 X", b""), "429 with Retry-After: 1": _REFUSAL % (b"429 X", b"retry-after: 1\r\n")}


class _Refusing:
    """arrivals: when each call was asked, by its text."""

    def __init__(self, refusal: bytes) -> None:
        self._refusal = refusal
        self.arrivals: dict[bytes, list[float]] = defaultdict(list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.arrivals[body].append(time.perf_counter())
                writer.write(self._refusal)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()


async def _ask(router: Router, model: Model, number: int) -> None:
    message = Message(role=Role.USER, content=(TextPart(text=f"call {number}"),))
    request = ChatRequest(model="m", messages=(message,), max_output_tokens=1)
    try:
        async with router.open(model, request, Prompt(input_tokens=1, deployment=""), Party(account_id="a")):
            raise RuntimeError("nobody was to answer")
    except ApiError:
        pass


async def _waits(refusal: bytes) -> list[list[float]]:
    """Seconds before the second, third … attempt, of all calls."""
    peer = _Refusing(refusal)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with Remote() as remote:
        engine = OpenAiServer(OpenAiServerConfig(address=address), remote)
        catalog = Catalog((ModelEntry(name="m", card=ModelCard(context_tokens=4096), deployments=("up",)),), {"up": engine})
        config = AttemptsConfig(retries=_RETRIES, breaker=BreakerConfig(failure_share=2))
        router = Router(SchedulerConfig(), standings=Standings(config))
        model = catalog.resolve("m", Caller(account_id="a", key_id="k"))
        async with anyio.create_task_group() as tasks:
            for number in range(_CALLS):
                tasks.start_soon(_ask, router, model, number)
                # In time, so that each call's budget is there when it needs it.
                await anyio.sleep(0.02)
    server.close()
    calls = [times for times in peer.arrivals.values() if len(times) == _ATTEMPTS]
    return [[times[n + 1] - times[n] for times in calls] for n in range(_ATTEMPTS - 1)]


_WIDTH, _HEIGHT, _LEFT, _TOP = 380, 260, 50, 56
_MOST_S = 1.08 * max(_RETRIES.base_s * 2 ** (_ATTEMPTS - 2), _TOLD_S + _RETRIES.base_s)


def draw(measured: dict[str, list[list[float]]]) -> str:
    """A dot for each wait, its bounds as lines; one field per kind of refusal."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="860" height="380" font-family="sans-serif" font-size="13">',
        '<rect width="860" height="380" fill="white"/>',
        f'<text x="12" y="22" font-size="15">Seconds waited before each attempt, as the upstream saw them; {_CALLS} calls each</text>',
    ]
    for field, (title, columns) in enumerate(measured.items()):
        x0 = _LEFT + field * (_WIDTH + 40)
        parts.append(f'<text x="{x0}" y="{_TOP - 10}">{title}</text>')
        for tick in range(int(_MOST_S) + 1):
            parts.append(f'<line x1="{x0}" x2="{x0 + _WIDTH}" y1="{_y(tick):.1f}" y2="{_y(tick):.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{x0 - 8}" y="{_y(tick) + 4:.1f}" text-anchor="end">{tick}</text>')
        bounds = [(0.0, _RETRIES.base_s * 2**n) if field == 0 else (_TOLD_S, _TOLD_S + _RETRIES.base_s) for n in range(len(columns))]
        for n, waits in enumerate(columns):
            parts += _column(x0 + _WIDTH / len(columns) * n, _WIDTH / len(columns), waits, bounds[n])
            parts.append(
                f'<text x="{x0 + _WIDTH / len(columns) * (n + 0.5):.1f}" y="{_TOP + _HEIGHT + 20}" text-anchor="middle">{n + 2}</text>'
            )
    return "\n".join([*parts, '<text x="12" y="366">attempt; red: the bounds of the random wait</text>', "</svg>"]) + "\n"


def _y(seconds: float) -> float:
    return _TOP + _HEIGHT * (1 - seconds / _MOST_S)


def _column(x0: float, step: float, waits: list[float], bounds: tuple[float, float]) -> list[str]:
    dots = "".join(f"M{x0 + step * (0.15 + 0.7 * place / len(waits)):.1f} {_y(wait):.1f}h0" for place, wait in enumerate(waits))
    lines = "".join(f"M{x0 + step * 0.1:.1f} {_y(bound):.1f}h{step * 0.8:.1f}" for bound in bounds)
    return [
        f'<path d="{dots}" stroke="#27a" stroke-width="2.6" stroke-linecap="round" stroke-opacity="0.5"/>',
        f'<path d="{lines}" stroke="#c33" stroke-width="1.5"/>',
    ]


def main() -> None:
    measured = {title: asyncio.run(_waits(refusal)) for title, refusal in _REFUSALS.items()}
    for title, columns in measured.items():
        for n, waits in enumerate(columns, 2):
            mean = sum(waits) / len(waits)
            print(f"{title}: before attempt {n}: {len(waits)} waits, {min(waits):.3f} to {max(waits):.3f} s, mean {mean:.3f} s")
    picture = Path(sys.argv[1]) if len(sys.argv) > 1 else _PICTURE
    picture.write_text(draw(measured), "utf-8")


if __name__ == "__main__":
    main()
