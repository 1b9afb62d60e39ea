"""Draws docs/practices/batches.svg: lines answered over time by `qwenbox batch run` while it and its box are killed again and again.

python -m bench.pictures.batches [FILE.svg]. A box on echo whose answers take a quarter of a second, with the defaults of `[batch]`;
somebody else looks at the batch all the while. Takes about two minutes.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import anyio
import msgspec
from sqlalchemy import select

from bench.box import qwenbox_command
from bench.process import Command, free_port
from bench.target import KEY, Place
from qwenbox.db import open_database
from qwenbox.gateway.journal.tables import USAGE

_LINES = 2_000
_TOML = '[engine.echo]\nkind = "echo"\ndelay_s = 0.05\n[cache]\nenabled = false\n'
# Shares of the lines at which somebody is killed; the box stays away for a while, the command is given again.
_KILLS = {0.0: "command", 0.1: "command", 0.2: "box", 0.35: "command", 0.5: "box", 0.6: "command", 0.7: "command", 0.8: "box"}
_AWAY_S = 3.0
_PICTURE = Path("docs/practices/batches.svg")


class Seen(msgspec.Struct, frozen=True):
    """lines: with a result, None while nobody answers."""

    at_s: float
    lines: int | None


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """kills: when and whom. rows: of the output; booked: calls in the books."""

    seen: tuple[Seen, ...]
    kills: tuple[tuple[float, str], ...]
    ended_s: float
    rows: int
    booked: int


class _World:
    """The box, the command, and the one who looks."""

    def __init__(self, folder: Path, place: Place, box: Command) -> None:
        self._folder = folder
        self._place = place
        self._box = box
        self._begun = time.perf_counter()
        self._back_at = 0.0
        self._running: subprocess.Popen[bytes]
        self._working: subprocess.Popen[bytes]
        self.seen: list[Seen] = []
        self.kills: list[tuple[float, str]] = []

    def run(self) -> Course:
        self._start_box()
        while self._batches() is None:
            time.sleep(0.1)
        self._start_command()
        self._begun = time.perf_counter()
        try:
            for share, whom in sorted(_KILLS.items()):
                while self._look() < share * _LINES or not self._batches():
                    self._pause()
                self._kill(whom)
            while self._working.poll() is None:
                self._look()
                self._pause()
            return self._course()
        finally:
            for process in (self._running, self._working):
                process.kill()
                process.wait()

    def _pause(self) -> None:
        time.sleep(0.1)
        if self._back_at and self._now() > self._back_at:
            self._start_box()
            self._back_at = 0.0

    def _kill(self, whom: str) -> None:
        self.kills.append((self._now(), whom))
        process = self._running if whom == "box" else self._working
        process.kill()
        process.wait()
        if whom == "box":
            self._back_at = self._now() + _AWAY_S
        else:
            self._start_command()

    def _course(self) -> Course:
        ended_s = self._now()
        if self._working.returncode != 0:
            raise RuntimeError((self._folder / "said").read_text())
        rows = [json.loads(line) for line in (self._folder / "out.jsonl").read_text().splitlines()]
        if [row["answer"].rpartition(" ")[2] for row in rows] != [str(number) for number in range(_LINES)]:
            raise RuntimeError("the answers are not those of the lines, in their order")
        booked = anyio.run(_booked, self._folder / "home")
        return Course(seen=tuple(self.seen), kills=tuple(self.kills), ended_s=ended_s, rows=len(rows), booked=booked)

    def _now(self) -> float:
        return time.perf_counter() - self._begun

    def _look(self) -> int:
        """How many lines have a result, as far as anybody can tell."""
        found = self._batches()
        lines = None if found is None else sum(batch["request_counts"]["completed"] for batch in found)
        self.seen.append(Seen(self._now(), lines))
        return lines or 0

    def _batches(self) -> list[dict[str, dict[str, int]]] | None:
        asking = urllib.request.Request(
            f"http://127.0.0.1:{self._place.port}/compatible-mode/v1/batches", headers={"authorization": f"Bearer {KEY}"}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asking, timeout=5) as answer:
                return json.load(answer)["data"]
        except (urllib.error.URLError, OSError, ValueError):
            return None

    def _start_box(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._running = subprocess.Popen(self._box.arguments, env={**os.environ, **self._box.environment}, stdout=log, stderr=log)

    def _start_command(self) -> None:
        words = ("batch", "run", "in.txt", "-o", "out.jsonl", "-m", "qwen-plus", "--no-costs", "--key", KEY)
        environment = {**os.environ, **self._box.environment, "QWENBOX_BASE_URL": f"http://127.0.0.1:{self._place.port}"}
        with (self._folder / "said").open("ab") as said:
            self._working = subprocess.Popen(
                (sys.executable, "-m", "qwenbox", *words), cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, stderr=said
            )


async def _booked(home: Path) -> int:
    async with open_database(f"sqlite+aiosqlite:///{home / 'qwenbox.db'}") as database:
        rows = await database.read(select(USAGE.c.id, USAGE.c.cost_micros))
    return sum(1 for row in rows if row["cost_micros"])


def measure() -> Course:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(port=free_port(), upstream=0, folder=Path(folder))
        (place.folder / "in.txt").write_text("".join(f"number {number}\n" for number in range(_LINES)), "utf-8")
        return _World(place.folder, place, qwenbox_command(place, _TOML)).run()


_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 240, 60, 56
_COLOURS = {"command": "#27a", "box": "#c33"}


def draw(course: Course) -> str:
    """A step for each look, a gap while nobody answered, a line for each kill."""

    def x(at_s: float) -> float:
        return _LEFT + _WIDTH * at_s / course.ended_s

    def y(lines: float) -> float:
        return _TOP + _HEIGHT * (1 - lines / _LINES)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="760" height="360" font-family="sans-serif" font-size="13">',
        '<rect width="760" height="360" fill="white"/>',
        f'<text x="12" y="22" font-size="15">{_LINES:,} lines while `qwenbox batch run` and its box are killed (kill -9)</text>',
    ]
    for lines in range(0, _LINES + 1, 500):
        parts.append(f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y(lines):.1f}" y2="{y(lines):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(lines) + 4:.1f}" text-anchor="end">{lines:,}</text>')
    seconds = range(0, int(course.ended_s) + 1, 10)
    parts += [f'<text x="{x(second):.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{second} s</text>' for second in seconds]
    for at_s, whom in course.kills:
        place = f'x1="{x(at_s):.1f}" x2="{x(at_s):.1f}" y1="{_TOP}" y2="{_TOP + _HEIGHT}"'
        parts.append(f'<line {place} stroke="{_COLOURS[whom]}" stroke-dasharray="4 3"/>')
    parts.append(
        f'<path d="{_path((x(each.at_s), y(each.lines)) if each.lines is not None else None for each in course.seen)}" {_STROKE}/>'
    )
    counts = {whom: sum(each == whom for _, each in course.kills) for whom in _COLOURS}
    parts.append(f'<text x="{_LEFT}" y="{_TOP - 10}" fill="{_COLOURS["command"]}">the command killed, {counts["command"]} times</text>')
    parts.append(f'<text x="{_LEFT + 260}" y="{_TOP - 10}" fill="{_COLOURS["box"]}">the box killed, {counts["box"]} times</text>')
    told = f"{course.rows:,} rows in the order of the input, {course.booked:,} calls booked; gaps: nobody answers"
    return "\n".join([*parts, f'<text x="12" y="346">{told}</text>', "</svg>"]) + "\n"


_STROKE = 'fill="none" stroke="#333" stroke-width="2"'


def _path(points: Iterable[tuple[float, float] | None]) -> str:
    text, is_drawn = "", False
    for point in points:
        if point is not None:
            text += f"{'L' if is_drawn else 'M'}{point[0]:.1f} {point[1]:.1f}"
        is_drawn = point is not None
    return text


def main() -> None:
    course = measure()
    kills = ", ".join(f"{whom} at {at_s:.1f} s" for at_s, whom in course.kills)
    print(f"killed: {kills}; over after {course.ended_s:.1f} s: {course.rows:,} rows in order, {course.booked:,} calls booked")
    picture = Path(sys.argv[1]) if len(sys.argv) > 1 else _PICTURE
    picture.write_text(draw(course), "utf-8")


if __name__ == "__main__":
    main()
