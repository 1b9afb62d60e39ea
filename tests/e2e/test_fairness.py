"""One account with a hundred open calls, and another's first call; people, and batch lines."""

import asyncio
import time

import anyio
import openai
import pytest

import wire
from boxes import Box
from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.gateway.keys import NewKey
from qwenbox.gateway.scheduler import Claim, Need, Pools, SchedulerConfig
from qwenbox.terms.call import Lane
from qwenbox.terms.chat import ChatRequest, Message, Role, TextPart
from support.books import Books

SERVICE_S = 0.5
CALLS = 100
TRIES = 3
HI = [{"role": "user", "content": "hi"}]


def key_of(books: Books, name: str) -> str:
    account = books.office(lambda office: office.accounts.named(name))
    _, secret = books.office(lambda office: office.keys.issue(NewKey(account_id=account.id, name=name)))
    return secret.reveal()


def known_to_all(box: Box, key: str) -> None:
    """A key made by another process is known a second later, if no other work keeps a worker from looking. Connections go to either."""
    deadline = time.monotonic() + 60
    answered = 0
    while answered < 20:
        assert time.monotonic() < deadline
        answered = answered + 1 if wire.call(box, "GET", "/v1/models", key=key).status == 200 else 0


class Ask:
    """Calls of one account through the openai SDK, and when each was over."""

    def __init__(self, box: Box, key: str) -> None:
        self._client = openai.AsyncOpenAI(api_key=key, base_url=box.compatible, max_retries=0)
        self.over_s: list[float] = []
        self.first = asyncio.Event()

    async def one(self) -> float:
        """How long it took."""
        sent_s = time.monotonic()
        answer = await self._client.chat.completions.create(model="qwen-turbo", messages=HI, max_tokens=4)
        assert answer.choices[0].finish_reason
        self.over_s.append(time.monotonic())
        self.first.set()
        return self.over_s[-1] - sent_s

    async def close(self) -> None:
        await self._client.close()


async def second_accounts_first_call(box: Box, greedy_key: str, modest_key: str) -> tuple[float, int]:
    """How long it took beside a hundred open calls, and how many of those ended meanwhile."""
    greedy, modest = Ask(box, greedy_key), Ask(box, modest_key)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(greedy.one()) for _ in range(CALLS)]
        await greedy.first.wait()
        sent_s = time.monotonic()
        took_s = await modest.one()
        over_s = time.monotonic()
        for call in running:
            call.cancel()
    await greedy.close()
    await modest.close()
    return took_s, sum(sent_s <= ended_s <= over_s for ended_s in greedy.over_s)


@pytest.mark.parametrize(("slots", "workers"), [(1, 1), (4, 1), (1, 2), (4, 2)])
def test_first_call_waits_one_service_time_at_most_when_another_account_has_a_hundred_open(
    serve, slots: int, workers: int, is_full: bool
) -> None:
    engine = f"[limits]\napproximate = true\n[engine.echo]\nslots = {slots}\nfirst_delay_s = {SERVICE_S}\n"
    box = serve(toml=engine, environment={"QWENBOX_WORKERS": str(workers)})
    books = Books(box)
    greedy, modest = key_of(books, "greedy"), key_of(books, "modest")
    for key in (greedy, modest):
        known_to_all(box, key)
    counts: list[int] = []
    # A machine that is slow for a moment sends the call late: the queue is the same another time.
    while len(counts) < (1 if is_full else TRIES) and min(counts, default=CALLS) > 3 * slots:
        took_s, ended = asyncio.run(second_accounts_first_call(box, greedy, modest))
        waited_s = took_s - SERVICE_S
        print(
            f"\n{slots} slot(s), {workers} worker(s), service time {SERVICE_S:.2f} s: the first call waited {waited_s:.2f} s"
            f" = {waited_s / SERVICE_S:.2f} service times; {ended} of the other account's calls ended meanwhile"
        )
        counts.append(ended)
    # Those that end together with the first, then one service time of waiting, then its own: each slot ends three calls at most.
    assert min(counts) <= 3 * slots


@pytest.mark.anyio
async def test_batch_lines_wait_for_people_and_people_for_no_more_than_the_line_that_runs() -> None:
    config = EchoConfig(slots=1, first_delay_s=0.02)
    engine, pools, order = Echo(config), Pools(SchedulerConfig()), list[str]()
    begun = anyio.Event()

    async def call(name: str, lane: Lane) -> None:
        request = ChatRequest(model="m", messages=(Message(role=Role.USER, content=(TextPart(text=name),)),), max_output_tokens=8)
        claim = Claim(account_id="a", need=Need(slots=1, kv_tokens=1), lane=lane)
        async with pools.turn("echo", engine.capacity, claim), engine.chat(request) as events:
            order.append(name)
            begun.set()
            async for _ in events:
                pass

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(call, f"line {number}", Lane.BATCH)
        await begun.wait()
        for number in range(5):
            tasks.start_soon(call, f"person {number}", Lane.INTERACTIVE)
    print(f"\n{order}")
    assert ["line 0", *(f"person {number}" for number in range(5)), *(f"line {number}" for number in range(1, 5))] == order
