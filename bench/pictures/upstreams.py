"""This is where it is measured and drawn who answers while a service is gone: `python -m bench.pictures.upstreams [FILE.svg]`.

A server on loopback answers, is gone for a while, and comes back; calls come at a steady pace. The router and the engine in front of it are
the real ones with the defaults of `[retries]` and `[breaker]`, service first, echo in place of this machine's weights.
"""

import asyncio
import sys
import time
from pathlib import Path

import anyio
import msgspec

from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.engines.openai_server import OpenAiServer, OpenAiServerConfig
from qwenbox.gateway.catalog import Catalog, Model, ModelEntry
from qwenbox.gateway.router import Party, Prompt, Router
from qwenbox.gateway.scheduler import SchedulerConfig
from qwenbox.remote import Remote
from qwenbox.terms.caller import Caller
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from qwenbox.terms.errors import ApiError
from qwenbox.terms.model import ModelCard

_CALLS_PER_S = 10
_WHOLE_S, _GONE_S, _BACK_S = 45.0, 12.0, 30.0
_THINKS_S = 0.02
_PICTURE = Path("docs/practices/upstreams.svg")
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    b'data: {"choices":[{"index":0,"delta":{"content":"Paris"},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds since the beginning, and of waiting. who: answered; "" is nobody."""

    at_s: float
    took_s: float
    who: str


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        await asyncio.sleep(_THINKS_S)
        writer.write(_ANSWER)
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _ask(router: Router, model: Model, began_s: float, calls: list[Call]) -> None:
    message = Message(role=Role.USER, content=(TextPart(text="The capital of France?"),))
    request = ChatRequest(model="m", messages=(message,), max_output_tokens=8)
    at_s, who = time.perf_counter(), ""
    try:
        async with router.open(model, request, Prompt(input_tokens=9, deployment=""), Party(account_id="a")) as answer:
            async for _ in answer.events:
                pass
            who = answer.deployment
    except ApiError:
        pass
    calls.append(Call(at_s=at_s - began_s, took_s=time.perf_counter() - at_s, who=who))


async def measure() -> list[Call]:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    calls: list[Call] = []
    async with Remote() as remote, anyio.create_task_group() as tasks:
        engines = {
            "service": OpenAiServer(OpenAiServerConfig(address=f"http://127.0.0.1:{port}/v1"), remote),
            "this machine": Echo(EchoConfig(delay_s=_THINKS_S)),
        }
        catalog = Catalog((ModelEntry(name="m", card=ModelCard(context_tokens=4096), deployments=tuple(engines)),), engines)
        router, model = Router(SchedulerConfig()), catalog.resolve("m", Caller(account_id="a", key_id="k"))
        began_s = time.perf_counter()
        for number in range(int(_WHOLE_S * _CALLS_PER_S)):
            await anyio.sleep(max(began_s + number / _CALLS_PER_S - time.perf_counter(), 0))
            if number == int(_GONE_S * _CALLS_PER_S):
                server.close()
                await server.wait_closed()
            if number == int(_BACK_S * _CALLS_PER_S):
                server = await asyncio.start_server(_serve, "127.0.0.1", port)
            tasks.start_soon(_ask, router, model, began_s, calls)
    server.close()
    return calls


_LEFT, _TOP, _WIDTH, _HEIGHT = 56, 60, 780, 240
_COLOURS = {"service": "#27a", "this machine": "#3a3", "": "#c33"}


def draw(calls: list[Call]) -> str:
    """A dot for each call: when it came, how long it took, who answered."""
    most_s = 1.05 * max(call.took_s for call in calls)

    def x(at_s: float) -> float:
        return _LEFT + _WIDTH * at_s / _WHOLE_S

    def y(took_s: float) -> float:
        return _TOP + _HEIGHT * (1 - took_s / most_s)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="860" height="370" font-family="sans-serif" font-size="13">',
        '<rect width="860" height="370" fill="white"/>',
        f'<text x="12" y="22" font-size="15">A service goes and comes back; {_CALLS_PER_S} calls a second, none of them failed</text>'
        if all(call.who for call in calls)
        else '<text x="12" y="22" font-size="15">A service goes and comes back</text>',
        f'<rect x="{x(_GONE_S):.1f}" y="{_TOP}" width="{x(_BACK_S) - x(_GONE_S):.1f}" height="{_HEIGHT}" fill="#f3e6e6"/>',
        f'<text x="{x(_GONE_S) + 6:.1f}" y="{_TOP + 16}" fill="#a55">the service is gone</text>',
    ]
    for tick in range(int(most_s * 10) + 1):
        parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y(tick / 10):.1f}" y2="{y(tick / 10):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(tick / 10) + 4:.1f}" text-anchor="end">{tick / 10:g} s</text>')
    parts += [
        f'<text x="{x(tick):.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{tick}</text>' for tick in range(0, int(_WHOLE_S) + 1, 5)
    ]
    for place, (who, colour) in enumerate(_COLOURS.items()):
        dots = "".join(f"M{x(call.at_s):.1f} {y(call.took_s):.1f}h0" for call in calls if call.who == who)
        if dots:
            parts.append(f'<path d="{dots}" stroke="{colour}" stroke-width="4" stroke-linecap="round" stroke-opacity="0.6"/>')
            parts.append(f'<text x="{_LEFT + 220 * place}" y="{_TOP - 14}" fill="{colour}">answered by {who or "nobody"}</text>')
    parts.append(
        f'<text x="{_LEFT}" y="{_TOP + _HEIGHT + 42}">seconds; upwards: how long each call took, retries and their waits included</text>'
    )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    calls = asyncio.run(measure())
    while_gone = [call for call in calls if _GONE_S <= call.at_s < _BACK_S]
    back = [call.at_s - _BACK_S for call in calls if call.at_s >= _BACK_S and call.who == "service"]
    waits = sorted(call.took_s for call in while_gone)
    print(f"{len(calls)} calls, {sum(not call.who for call in calls)} failed; while the service was gone {len(while_gone)} came")
    print(f"they took {waits[len(waits) // 2]:.3f} s in the middle, {waits[int(len(waits) * 0.9)]:.3f} s at p90, {waits[-1]:.2f} s at most")
    print(f"the service answered again {min(back):.1f} s after it was back")
    picture = Path(sys.argv[1]) if len(sys.argv) > 1 else _PICTURE
    picture.write_text(draw(calls), "utf-8")


if __name__ == "__main__":
    main()
