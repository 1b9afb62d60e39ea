"""Turns on a busy engine: KV tokens and slots are never oversold, and nobody is forgotten."""

import anyio
import anyio.lowlevel
import pytest

from qwenbox.gateway.scheduler import Need, Pool, SchedulerConfig
from qwenbox.terms.engine import Capacity
from qwenbox.terms.errors import ApiError, ErrorKind

pytestmark = pytest.mark.anyio


def pool(*, slots: int | None = None, kv_tokens: int | None = None, **config: float) -> Pool:
    return Pool(Capacity(slots=slots, kv_tokens=kv_tokens), SchedulerConfig(**config))  # type: ignore[arg-type]


async def test_turn_waits_when_kv_tokens_do_not_fit() -> None:
    turns = pool(kv_tokens=100)
    running = peak = 0

    async def call() -> None:
        nonlocal running, peak
        async with turns.turn(Need(slots=1, kv_tokens=40)):
            running += 1
            peak = max(peak, running)
            await anyio.sleep(0.001)
            running -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(call)
    assert peak == 2
    assert turns.waiting == 0


async def test_turn_is_first_come_first_served_when_a_small_call_could_overtake() -> None:
    turns = pool(kv_tokens=100)
    order: list[str] = []

    async def call(name: str, kv_tokens: int) -> None:
        async with turns.turn(Need(slots=1, kv_tokens=kv_tokens)):
            order.append(name)
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as tasks:
        for name, kv_tokens in (("first", 60), ("large", 100), ("small", 10)):
            tasks.start_soon(call, name, kv_tokens)
            await anyio.lowlevel.checkpoint()
    assert order == ["first", "large", "small"]


async def test_turn_refuses_when_the_call_alone_is_larger_than_the_pool() -> None:
    with pytest.raises(ApiError) as refused:
        async with pool(kv_tokens=100).turn(Need(slots=1, kv_tokens=101)):
            pass
    assert refused.value.kind is ErrorKind.INVALID_REQUEST
    assert refused.value.param == "max_tokens"


async def test_turn_refuses_with_retry_after_when_the_queue_is_full() -> None:
    turns = pool(slots=1, queue_limit=0)
    async with turns.turn(Need(slots=1, kv_tokens=1)):
        with pytest.raises(ApiError) as refused:
            async with turns.turn(Need(slots=1, kv_tokens=1)):
                pass
    assert refused.value.kind is ErrorKind.OVERLOADED
    assert refused.value.retry_after_s is not None


async def test_turn_refuses_when_the_wait_is_too_long_and_leaves_nothing_behind() -> None:
    turns = pool(slots=1, queue_wait_s=0.01)
    async with turns.turn(Need(slots=1, kv_tokens=1)):
        with pytest.raises(ApiError) as refused:
            async with turns.turn(Need(slots=1, kv_tokens=1)):
                pass
    assert refused.value.kind is ErrorKind.OVERLOADED
    async with turns.turn(Need(slots=1, kv_tokens=1)):
        assert turns.waiting == 0


async def test_turn_frees_the_queue_when_a_waiting_caller_hangs_up() -> None:
    turns = pool(kv_tokens=100)
    entered = anyio.Event()

    async def waits(kv_tokens: int) -> None:
        async with turns.turn(Need(slots=1, kv_tokens=kv_tokens)):
            entered.set()

    async with turns.turn(Need(slots=1, kv_tokens=90)), anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as gone:
            gone.start_soon(waits, 100)
            await anyio.sleep(0.001)
            gone.cancel_scope.cancel()
        tasks.start_soon(waits, 10)
        with anyio.fail_after(1):
            await entered.wait()
    assert turns.waiting == 0


async def test_turn_is_given_back_when_a_caller_hangs_up_while_admitted() -> None:
    turns = pool(slots=1)
    async with anyio.create_task_group() as gone:

        async def waits() -> None:
            async with turns.turn(Need(slots=1, kv_tokens=1)):
                await anyio.sleep_forever()

        async with turns.turn(Need(slots=1, kv_tokens=1)):
            gone.start_soon(waits)
            await anyio.sleep(0.001)
        gone.cancel_scope.cancel()  # the waiter was admitted in this very moment, before it could run
    with anyio.fail_after(1):
        async with turns.turn(Need(slots=1, kv_tokens=1)):
            pass
