"""This is where provoked failures are measured as a client sees them: `python -m bench.pictures.testing [FILE.svg]`.

One streamed call of a running box on echo for each fault, by the header; every piece of the answer is noted as it comes, and how it ended.
"""

import sys
import tempfile
import time
from html import escape
from pathlib import Path

import httpx
import msgspec

from bench.box import qwenbox_command
from bench.process import cores, free_port, start
from bench.target import KEY, Place

_FAULTS = (
    "",
    "throttling_rate",
    "throttling_allocation",
    "arrearage",
    "data_inspection",
    "internal_error",
    "malformed",
    "timeout",
    "overloaded",
    "slow_first_token;seconds=0.5",
    "cut;after=3",
    "reset;after=3",
)
_TOML = '[faults]\nprovoke = true\n[cache]\nenabled = false\n[engine.echo]\nkind = "echo"\ndelay_s = 0.08\n'
_PICTURE = Path("docs/practices/testing.svg")


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """at_s: when each piece with text came, from sending the call. end: in words. is_good: the answer was whole."""

    fault: str
    at_s: tuple[float, ...]
    ended_s: float
    end: str
    is_good: bool


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta


class _Frame(msgspec.Struct, frozen=True):
    error: _Error | None = None
    choices: list[_Choice] = []


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error


def _ask(client: httpx.Client, fault: str) -> Seen:
    body = {"model": "qwen-plus", "messages": [{"role": "user", "content": "one two three four five six"}], "stream": True}
    headers = {"authorization": f"Bearer {KEY}", **({"x-qwenbox-provoke": fault} if fault else {})}
    at_s: list[float] = []
    end, is_good, began_s = "", False, time.perf_counter()
    try:
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            if answer.status_code != 200:
                refusal = msgspec.json.decode(answer.read(), type=_Refusal)
                after = f", Retry-After: {answer.headers['retry-after']}" if "retry-after" in answer.headers else ""
                end = f"{answer.status_code} {refusal.error.code}{after}"
            for line in answer.iter_lines() if not end else ():
                if line == "data: [DONE]":
                    end, is_good = "[DONE]", True
                elif line.startswith("data: {"):
                    frame = msgspec.json.decode(line[6:], type=_Frame)
                    if frame.error is not None:
                        end = f"200, then an error frame: {frame.error.code}"
                    elif frame.choices and frame.choices[0].delta.content:
                        at_s.append(time.perf_counter() - began_s)
    except httpx.TransportError:
        end = "200, then the connection is gone"
    return Seen(fault=fault, at_s=tuple(at_s), ended_s=time.perf_counter() - began_s, end=end, is_good=is_good)


def measure() -> list[Seen]:
    measured, _ = cores()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(port=free_port(), upstream=0, folder=Path(folder))
        with (
            start(qwenbox_command(place, _TOML), measured, place.folder / "log"),
            httpx.Client(base_url=f"http://127.0.0.1:{place.port}", trust_env=False) as client,
        ):
            _ask(client, "")  # what is first takes longer
            return [_ask(client, fault) for fault in _FAULTS]


_LEFT, _TOP, _ROW, _WIDTH = 240, 52, 26, 330


def draw(seen: list[Seen]) -> str:
    """A row for each fault: a dot for each piece that came, a cross or a tick where it ended."""
    most_s = 1.05 * max(each.ended_s for each in seen)
    height = _TOP + _ROW * len(seen) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="920" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="920" height="{height}" fill="white"/>',
        '<text x="12" y="22" font-size="15">One streamed call for each fault, as its client sees it</text>',
    ]
    for tick in range(int(most_s * 5) + 1):
        x = _LEFT + _WIDTH * tick / 5 / most_s
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 12}" y2="{height - 40}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 22}" text-anchor="middle">{tick / 5:g} s</text>')
    for place, each in enumerate(seen):
        y = _TOP + _ROW * place + 4
        dots = "".join(f"M{_LEFT + _WIDTH * at_s / most_s:.1f} {y - 4}h0" for at_s in each.at_s)
        end_x = _LEFT + _WIDTH * each.ended_s / most_s
        colour = "#3a3" if each.is_good else "#c33"
        parts += [
            f'<text x="12" y="{y}" font-family="monospace">{escape(each.fault or "(none)")}</text>',
            f'<path d="{dots}" stroke="#27a" stroke-width="6" stroke-linecap="round"/>',
            f'<text x="{end_x:.1f}" y="{y}" text-anchor="middle" fill="{colour}">{"✓" if each.is_good else "✗"}</text>',
            f'<text x="{_LEFT + _WIDTH + 16}" y="{y}" fill="{colour}">{escape(each.end)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    seen = measure()
    for each in seen:
        print(f"{each.fault or '(none)'}: {len(each.at_s)} pieces, {each.end} after {each.ended_s:.2f} s")
    picture = Path(sys.argv[1]) if len(sys.argv) > 1 else _PICTURE
    picture.write_text(draw(seen), "utf-8")


if __name__ == "__main__":
    main()
