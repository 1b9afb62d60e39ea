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
# What is let pass of what may be; how often short windows are tried.
FULL, TRIES = 0.99, 3

# One call of these tests: what it reserves, and what it uses.
TEXT = "one two three"


@dataclass(frozen=True)
class Case:
    """Of one model. limit: of calls, or of tokens if weight, the tokens of a call, is above 1, in a window."""

    model: str
    name: str
    limit: int
    weight: int
    max_tokens: int

    @property
    def toml(self) -> str:
        return f'[tier.test.model."{self.model}"]\n{"rpm" if self.weight == 1 else "tpm"} = {self.limit}\n'


def usage_of_one(box: Box) -> tuple[int, int]:
    """Input and output tokens of one call."""

    async def ask() -> Sample:
        async with Connection(box.port, KEY) as connection:
            return await connection.chat(TEXT, model="qwen-max", max_tokens=1_000)

    usage = asyncio.run(ask()).json["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


async def hammer(ports: list[int], cases: list[Case], seconds: float) -> dict[str, list[Sample]]:
    """For each case 64 clients that ask as fast as they are let, and wait as long as they are told; all at once. By the case's model."""
    samples: dict[str, list[Sample]] = {case.model: [] for case in cases}
    end_s = time.monotonic() + seconds

    async def client(port: int, case: Case) -> None:
        async with Connection(port, KEY) as connection:
            while (left_s := end_s - time.monotonic()) > 0:
                sample = await connection.chat(TEXT, model=case.model, max_tokens=case.max_tokens)
                samples[case.model].append(sample)
                if sample.status == 429:
                    await asyncio.sleep(min(sample.retry_after_s or 0.01, max(0.0, left_s)))

    await asyncio.gather(*(client(ports[number % len(ports)], case) for number in range(CLIENTS) for case in cases))
    return samples


def boxes_of(where: str, toml: str, serve, stores) -> tuple[list[Box], str]:
    """The boxes that share one limit, and their database's URL."""
    if where == "memory":
        return [serve(toml=toml)], ""
    environment = {"QWENBOX_VALKEY_URL": stores.valkey().url}
    if where == "valkey, 4 workers":
        return [serve(toml=toml, environment={**environment, "QWENBOX_WORKERS": "4"}, start_s=120)], ""
    url = stores.postgres()
    environment["QWENBOX_DATABASE_URL"] = url
    skewed = toml + "[testing]\nskew_s = 5.0\n"
    return [serve(toml=toml, environment=environment), serve(toml=skewed, environment=environment)], url


@pytest.mark.parametrize("where", ["memory", "valkey, 4 workers", "valkey, 2 nodes"])
def test_limit_holds_in_any_window_under_64_clients(where: str, box: Box, serve, stores, is_full: bool) -> None:
    """Limits of calls and of tokens, on one key: a limit is one of a model."""
    window_s, calls = (60.0, 1_200) if is_full else (2.0, 80)
    prompt, output = usage_of_one(box)
    tokens = prompt + output
    cases = [
        Case("qwen-turbo", "requests", calls, 1, output * 10),
        Case("qwen-plus", "tokens", calls * tokens, tokens, output),
        Case("qwen-max", "tokens, ten times reserved", calls * tokens, tokens, output * 10),
    ]
    toml = f'[limits]\nwindow_s = {window_s}\ndefault_tier = "test"\n' + "".join(case.toml for case in cases)
    running, url = boxes_of(where, toml, serve, stores)
    shares, answered = list[float](), set[str]()
    # Short windows on a machine that is slow for a while may see too few calls to be full.
    while len(shares) < (1 if is_full else TRIES) and max(shares, default=0.0) < FULL:
        if shares:
            time.sleep(window_s)
        samples = asyncio.run(hammer([one.port for one in running], cases, window_s * WINDOWS))
        rows = Books(running[0], url).rows()
        print(f"\n{where}, window {window_s:g} s")
        admitted = {case.model: [row["admitted_at"] for row in rows if row["model"] == case.model] for case in cases}
        shares.append(min(_share(case, samples[case.model], admitted[case.model], window_s) for case in cases))
        answered |= {sample.id for each in samples.values() for sample in each if sample.status == 200}
        assert answered == {row["id"] for row in rows}
    assert max(shares) >= FULL


def _share(case: Case, samples: list[Sample], admitted: list[float], window_s: float) -> float:
    """How much of what the limit lets pass came from these samples; where ten times as much is reserved as used, that is not asked."""
    assert {200, 429} >= {sample.status for sample in samples}
    good = [sample for sample in samples if sample.status == 200]
    inside = busiest([(at, case.weight) for at in admitted], window_s - 1e-5)  # less the grain of a float
    # What the clients can prove from outside: calls that began and ended within one window.
    outside = _within(good, window_s) * case.weight
    share = len(good) * case.weight / (case.limit * WINDOWS)
    print(f"{case.name}: limit {case.limit}, busiest window {inside} (clients: {outside}), share {share:.1%}")
    assert inside <= case.limit
    assert outside <= case.limit
    return 1.0 if "ten times" in case.name else share


def _within(samples: list[Sample], window_s: float) -> int:
    """The most calls sent and answered within one window."""
    spans = sorted((sample.done_s, sample.sent_s) for sample in samples)
    best = 0
    starts = sorted(sent for _, sent in spans)
    for start in starts[:: max(1, len(starts) // 500)]:
        best = max(best, sum(1 for done, sent in spans if sent >= start and done <= start + window_s))
    return best
