"""A client that hangs up frees its slot: while the answer is written within 200 ms, before that within two steps of reading."""

import time
from pathlib import Path

import anyio
import pytest

from e2e.engines import Child, ask, busy_slots, open_engine, weights_file
from qwenbox.engines import gguf
from qwenbox.engines.llamacpp.engine import LlamaCpp
from qwenbox.remote import Remote
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.events import Started, TextDelta

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

BATCH_TOKENS = 128
WORDS = "one two three four five six seven eight nine ten "


async def _freed_after_s(child: Child) -> float:
    """Seconds from now until no slot is busy; measured through the child itself, so a step that it finishes first counts."""
    left_s = time.monotonic()
    for _ in range(6000):
        if not await busy_slots(child):
            break
        await anyio.sleep(0.01)
    return time.monotonic() - left_s


async def _hang_up(engine: LlamaCpp, child: Child, request: ChatRequest, kind: type) -> float:
    """Leave at the first event of this kind; how long the slot stays busy."""
    async with engine.chat(request) as events:
        async for event in events:
            if isinstance(event, kind):
                break
    return await _freed_after_s(child)


async def test_slot_is_free_soon_when_a_client_hangs_up(weights_folder: Path, is_full: bool) -> None:
    runs = 10 if is_full else 3
    async with open_engine(weights_folder) as engine, Remote() as remote:
        await engine.warm()
        file = gguf.read(weights_file(weights_folder))
        async with engine.shared.use(file) as endpoint:
            child = Child(remote, endpoint.address, endpoint.key.reveal())
            decoding = [await _hang_up(engine, child, ask(f"Count to {1000 + run}.", tokens=2000), TextDelta) for run in range(runs)]
            before_s = await _step_s(engine)
            reading = [await _hang_up(engine, child, ask(f"{run} " + WORDS * 200), Started) for run in range(runs)]
            step_s = max(before_s, await _step_s(engine))
    shown = [" ".join(f"{moment:.3f}" for moment in moments) for moments in (decoding, reading)]
    print(f"\nfreed while decoding after {shown[0]} s; while reading after {shown[1]} s, where a step takes {step_s:.2f} s")
    assert sorted(reading)[len(reading) // 2] <= 2.1 * step_s
    assert max(reading) <= 2.6 * step_s  # steps of a busy machine are not all alike
    assert sorted(decoding)[len(decoding) // 2] <= 0.2


async def _step_s(engine: LlamaCpp) -> float:
    """How long the child reads BATCH_TOKENS tokens at this moment."""
    request = ask("step " + WORDS * 60, tokens=1)
    tokens = await engine.count(request)
    begun_s = time.monotonic()
    async with engine.chat(request) as events:
        async for event in events:
            if isinstance(event, Started):
                begun_s = time.monotonic()
    return (time.monotonic() - begun_s) * BATCH_TOKENS / tokens


async def test_seed_lane_is_free_for_the_next_when_a_client_hangs_up(weights_folder: Path) -> None:
    async with open_engine(weights_folder, kv_tokens=4096, context_tokens=4096) as engine:
        async with engine.chat(ask("Count to 1000.", tokens=2000, seed=1)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        with anyio.fail_after(30):
            async with engine.chat(ask("Hi", tokens=1, seed=1)) as events:
                kinds = [type(event) async for event in events]

        assert Started is kinds[0]
