"""Nothing a client saw the end of is ever missing from the books, and nothing is there twice: kill -9, dead workers, full disks."""

import asyncio
import contextlib
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import boxes
from boxes import KEY, Box
from e2e.children import workers
from e2e.test_budget import box_at, pay_in
from support.books import Books
from support.load import Connection, Sample

CLIENTS = 32

# Tokens come slowly enough that many calls are open at any moment.
SLOW_ECHO = '[engine.echo]\nkind = "echo"\ndelay_s = 0.002\n[valkey]\nbeat_s = 0.3\ndead_s = 1.5\n'


async def load(box: Box, seconds: float, deed, latest: float = 0.8) -> list[Sample]:
    """Clients that ask until the time is over, half of them for streams; `deed()` begins at a random moment, at `latest` of the time."""
    samples: list[Sample] = []
    end_s = time.monotonic() + seconds
    moment_s = random.uniform(0.2, latest) * seconds

    async def client(number: int) -> None:
        async with Connection(box.port, KEY) as connection:
            while time.monotonic() < end_s:
                text = " ".join(["word"] * random.randint(1, 20))
                sample = await connection.chat(text, max_tokens=200, stream=number % 2 == 0)
                samples.append(sample)
                if sample.status != 200:
                    await asyncio.sleep(0.05)

    async def act() -> None:
        await asyncio.sleep(moment_s)
        await deed()

    await asyncio.gather(act(), *(client(number) for number in range(CLIENTS)))
    return samples


def check(books: Books, samples: list[Sample]) -> None:
    rows = {row["id"]: row for row in books.rows()}
    ended = [sample for sample in samples if sample.is_ended]
    missing = [sample.id for sample in ended if sample.id not in rows]
    assert [] == missing
    assert {"completed"} == {rows[sample.id]["outcome"] for sample in ended}
    assert [] == books.faults()
    assert len(ended) > CLIENTS


@contextlib.contextmanager
def restarted(home: Path, **settings) -> Iterator[Box]:
    with boxes.serve(home, **settings) as box:
        yield box


def test_every_ended_call_has_its_row_after_kill_9(tmp_path: Path, is_full: bool) -> None:
    rounds = 20 if is_full else 4
    samples: list[Sample] = []
    for _ in range(rounds):
        with restarted(tmp_path / "box", toml=SLOW_ECHO) as box:

            async def kill(box: Box = box) -> None:
                box.process.kill()

            samples += asyncio.run(load(box, 1.2, kill))
    with restarted(tmp_path / "box", toml=SLOW_ECHO) as box:
        print(f"\n{rounds} times kill -9: {len(samples)} calls, {sum(sample.is_ended for sample in samples)} seen to their end")
        check(Books(box), samples)


def test_a_killed_workers_calls_are_whole_or_unsaid_and_its_reservations_released(serve, stores, is_full: bool) -> None:
    rounds = 20 if is_full else 4
    box, books = box_at("2 workers, PostgreSQL and Valkey", serve, stores, SLOW_ECHO)
    account = pay_in(books, 10_000_000)
    samples: list[Sample] = []
    for _ in range(rounds):

        async def kill() -> None:
            # The one before may be dead already, and this round's not born yet.
            while not (alive := workers(box.process.pid)):  # noqa: ASYNC110 (other processes, which no event tells)
                await asyncio.sleep(0.01)
            os.kill(random.choice(alive), signal.SIGKILL)

        samples += asyncio.run(load(box, 1.5, kill))
    print(f"\n{rounds} workers killed: {len(samples)} calls, {sum(sample.is_ended for sample in samples)} seen to their end")
    check(books, samples)
    # What is left can be spent to the last micro-unit: nothing is held for the dead.
    left = books.balance(account)
    assert 0 < left < 10_000_000
    assert 200 == asyncio.run(_spend_at_most(box, left)).status


async def _spend_at_most(box: Box, micros: int) -> Sample:
    """One call whose worst case is the whole balance (of qwen-turbo, which costs 0.6 a token): it waits for whatever is held."""
    deadline = time.monotonic() + 60
    async with Connection(box.port, KEY) as connection:
        while True:
            sample = await connection.chat("last", model="qwen-turbo", max_tokens=min(16_384, micros))
            # Both workers may have been killed within a second: then nobody listens until one of their successors does.
            if sample.status != 0 or time.monotonic() > deadline:
                return sample
            await asyncio.sleep(0.1)


def test_a_disk_that_fills_up_stops_new_calls_and_loses_none(serve) -> None:
    # Short, so that those who wait for the books are told while they are closed, and come again.
    box = serve(toml=f"{SLOW_ECHO}[journal]\ncommit_wait_s = 0.3\n")
    books = Books(box)
    size = max(file.stat().st_size for file in box.home.glob("*.db*"))

    async def fill_and_empty() -> None:
        # Every file of the box that would grow past this is refused by the kernel, as on a full disk.
        resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, (size + 200_000, resource.RLIM_INFINITY))
        await asyncio.sleep(1.5)
        resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    samples = asyncio.run(load(box, 5.0, fill_and_empty, latest=0.4))
    statuses = {sample.status for sample in samples}
    print(f"\nfull disk: {len(samples)} calls, statuses {sorted(statuses)}")
    assert {200, 503} == statuses
    last = max(samples, key=lambda sample: sample.done_s)
    assert 200 == last.status
    check(books, samples)
    # Nothing was served unbilled: an answer that was cut for want of books is there too, as soon as they open.
    rows = {row["id"] for row in books.rows()}
    cut = [sample for sample in samples if sample.status == 200 and not sample.is_ended]
    assert {sample.id for sample in cut} <= rows
