"""A client that hangs up frees its slot: while the answer is written within 200 ms, before that within two steps of reading."""

import time
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest

from e2e.engines import Child, ask, open_engine, tokens_read, weights_file
from qwenbox.engines import gguf
from qwenbox.engines.llamacpp.engine import LlamaCpp
from qwenbox.engines.llamacpp.job import loading
from qwenbox.remote import Remote
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.events import Started, TextDelta

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

BATCH_TOKENS = 128
# A machine that is slow for a moment is measured once more.
TRIES = 3
WORDS = "one two three four five six seven eight nine ten "


class _Freed(NamedTuple):
    """How a slot became free. after_s: seconds; steps: whole batches of the prompt that the child read meanwhile, by its own count."""

    after_s: float
    steps: int


async def _freed(child: Child) -> _Freed:
    """Watch until no slot is busy, through the child itself: it answers between two steps, so each step is seen."""
    left_s = time.monotonic()
    read: list[int] = []
    while tokens := await tokens_read(child):
        read.append(max(tokens))
        await anyio.sleep(0.01)
    return _Freed(time.monotonic() - left_s, (read[-1] - read[0]) // BATCH_TOKENS if read else 0)


async def _hang_up(engine: LlamaCpp, child: Child, request: ChatRequest, kind: type) -> _Freed:
    """Leave at the first event of this kind; how the slot becomes free."""
    async with engine.chat(request) as events:
        async for event in events:
            if isinstance(event, kind):
                break
    with anyio.fail_after(60):
        return await _freed(child)


async def test_slot_is_free_soon_when_a_client_hangs_up(weights_folder: Path, is_full: bool) -> None:
    runs = 10 if is_full else 3
    async with open_engine(weights_folder) as engine, Remote() as remote:
        await engine.warm()
        file = gguf.read(weights_file(weights_folder))
        async with engine.shared.use(loading(file)) as endpoint:
            child = Child(remote, endpoint.address, endpoint.key.reveal())
            decoding = list[_Freed]()
            while len(decoding) < (runs if is_full else TRIES * runs) and (not decoding or _middle_s(decoding[-runs:]) > 0.2):
                asked = [ask(f"Count to {1000 + run}.", tokens=2000) for run in range(runs)]
                decoding += [await _hang_up(engine, child, request, TextDelta) for request in asked]
            reading = [await _hang_up(engine, child, ask(f"{run} " + WORDS * 200), Started) for run in range(runs)]
    print(f"\nfreed while decoding after {_shown(decoding)}; while reading after {_shown(reading)}")
    assert max(freed.steps for freed in reading) <= 2
    assert _middle_s(decoding[-runs:]) <= 0.2


def _middle_s(freed: list[_Freed]) -> float:
    return sorted(each.after_s for each in freed)[len(freed) // 2]


def _shown(freed: list[_Freed]) -> str:
    return ", ".join(f"{each.after_s:.3f} s and {each.steps} steps" for each in freed)


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
