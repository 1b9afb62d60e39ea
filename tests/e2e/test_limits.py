"""Limits hold in any window: in one process, over four workers, and over two nodes whose clocks disagree."""

import asyncio
import time
from dataclasses import dataclass

import pytest

from boxes import KEY, Box
from support.books import Books
from support.load import Connection, Sample, busiest

CLIENTS = 64
WINDOWS = 3

# One call of these tests: what it reserves, and what it uses.
TEXT = "one two three"


@dataclass(frozen=True)
class Case:
    """limit: of calls or of tokens in a window."""

    kind: str
    window_s: float
    limit: int

    @property
    def toml(self) -> str:
        field = "rpm" if self.kind == "requests" else "tpm"
        return f'[limits]\nwindow_s = {self.window_s}\ndefault_tier = "test"\n[tier.test]\n{field} = {self.limit}\n'


@dataclass(frozen=True)
class Run:
    samples: list[Sample]
    admitted: list[tuple[float, int]]


def usage_of_one(box: Box) -> tuple[int, int]:
    """Input and output tokens of one call."""

    async def ask() -> Sample:
        async with Connection(box.port, KEY) as connection:
            return await connection.chat(TEXT, model="qwen-max", max_tokens=1_000)

    usage = asyncio.run(ask()).json["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


async def hammer(ports: list[int], seconds: float, max_tokens: int) -> list[Sample]:
    """64 clients that ask as fast as they are let, and wait as long as they are told."""
    samples: list[Sample] = []
    end_s = time.monotonic() + seconds

    async def client(port: int) -> None:
        async with Connection(port, KEY) as connection:
            while (left_s := end_s - time.monotonic()) > 0:
                sample = await connection.chat(TEXT, max_tokens=max_tokens)
                samples.append(sample)
                if sample.status == 429:
                    await asyncio.sleep(min(sample.retry_after_s or 0.01, max(0.0, left_s)))

    await asyncio.gather(*(client(ports[number % len(ports)]) for number in range(CLIENTS)))
    return samples


def boxes_of(where: str, case: Case, serve, stores) -> tuple[list[Box], str]:
    """The boxes that share one limit, and their database's URL."""
    if where == "memory":
        return [serve(toml=case.toml)], ""
    environment = {"QWENBOX_VALKEY_URL": stores.valkey().url}
    if where == "valkey, 4 workers":
        return [serve(toml=case.toml, environment={**environment, "QWENBOX_WORKERS": "4"}, start_s=120)], ""
    url = stores.postgres()
    environment["QWENBOX_DATABASE_URL"] = url
    skewed = case.toml + "[testing]\nskew_s = 5.0\n"
    return [serve(toml=case.toml, environment=environment), serve(toml=skewed, environment=environment)], url


@pytest.mark.parametrize("kind", ["requests", "tokens", "tokens, ten times reserved"])
@pytest.mark.parametrize("where", ["memory", "valkey, 4 workers", "valkey, 2 nodes"])
def test_limit_holds_in_any_window_under_64_clients(where: str, kind: str, box: Box, serve, stores, is_full: bool) -> None:
    window_s = 60.0 if is_full else 2.0
    calls = 1_200 if is_full else 200
    prompt, output = usage_of_one(box)
    tokens = prompt + output
    limit = calls if kind == "requests" else calls * tokens
    case = Case("requests" if kind == "requests" else "tokens", window_s, limit)
    max_tokens = output if kind == "tokens" else output * 10
    running, url = boxes_of(where, case, serve, stores)
    samples = asyncio.run(hammer([one.port for one in running], window_s * WINDOWS, max_tokens))
    rows = Books(running[0], url).rows()
    assert {200, 429} >= {sample.status for sample in samples}
    good = [sample for sample in samples if sample.status == 200]
    assert {sample.id for sample in good} == {row["id"] for row in rows}
    weight = 1 if kind == "requests" else tokens
    inside = busiest([(row["admitted_at"], weight) for row in rows], window_s - 1e-5)  # less the grain of a float
    # What the clients can prove from outside: calls that began and ended within one window.
    outside = _within(good, window_s) * weight
    share = len(rows) * weight / (limit * WINDOWS)
    print(f"\n{where}; {kind}; window {window_s:g} s: limit {limit}, busiest window {inside} (clients: {outside}), share {share:.1%}")
    assert inside <= limit
    assert outside <= limit
    if "ten times" not in kind:
        assert share >= 0.99


def _within(samples: list[Sample], window_s: float) -> int:
    """The most calls sent and answered within one window."""
    spans = sorted((sample.done_s, sample.sent_s) for sample in samples)
    best = 0
    starts = sorted(sent for _, sent in spans)
    for start in starts[:: max(1, len(starts) // 500)]:
        best = max(best, sum(1 for done, sent in spans if sent >= start and done <= start + window_s))
    return best
