"""This is where tests open an embedded engine on real weights, without a box around it."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from qwenbox.engines.llamacpp.config import LlamaCppConfig, LlamaParts
from qwenbox.engines.llamacpp.engine import LlamaCpp
from qwenbox.engines.memory import MemoryBudget
from qwenbox.remote import Remote, RemoteRequest
from qwenbox.terms.chat import ChatRequest, Message, Role, Sampling, TextPart
from qwenbox.terms.events import ChatResult, Fold, TextDelta

SMALL = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
LARGE = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
GENEROUS = MemoryBudget(12_000_000_000)


def weights_file(folder: Path, name: str = SMALL) -> Path:
    """The file's path; fails the test when it is not there."""
    if not (folder / name).is_file():
        pytest.fail(f"{name} is not here: `qwenbox pull` fetches it, or QWENBOX_TEST_WEIGHTS names a folder that holds it")
    return folder / name


@asynccontextmanager
async def open_engine(folder: Path, name: str = SMALL, memory: MemoryBudget = GENEROUS, **settings: object) -> AsyncGenerator[LlamaCpp]:
    """An engine on that file. settings: of LlamaCppConfig."""
    path = weights_file(folder, name)

    async def locate() -> Path:
        return path

    config = msgspec.convert({"kind": "llamacpp", "weights": name, **settings}, LlamaCppConfig)
    async with Remote() as remote:
        parts = LlamaParts(remote=remote, memory=memory, locate=locate, is_here=path.is_file, title=name)
        async with LlamaCpp(config, parts) as engine:
            yield engine


def ask(text: str, *, tokens: int = 64, seed: int | None = None, temperature: float = 1.0, **fields: object) -> ChatRequest:
    """A question of one user; fields: of ChatRequest."""
    message = Message(role=Role.USER, content=(TextPart(text=text),))
    request = ChatRequest(model="m", messages=(message,), max_output_tokens=tokens, sampling=Sampling(temperature=temperature, seed=seed))
    return msgspec.structs.replace(request, **fields)


async def whole(engine: LlamaCpp, request: ChatRequest) -> ChatResult:
    fold = Fold()
    async with engine.chat(request) as events:
        async for event in events:
            fold.add(event)
    return fold.result()


async def text_of(engine: LlamaCpp, request: ChatRequest) -> str:
    return (await whole(engine, request)).choices[0].text


class Beat:
    """When each piece of a stream came, in monotonic seconds. first_s: the first pieces of answers, of which there may be several."""

    def __init__(self) -> None:
        self.at_s: list[float] = []
        self.first_s: set[float] = set()

    @property
    def longest_gap_s(self) -> float:
        """Between two pieces of one answer."""
        return max((later - earlier for earlier, later in pairwise(self.at_s) if later not in self.first_s), default=0.0)

    @property
    def per_second(self) -> float:
        return (len(self.at_s) - 1) / (self.at_s[-1] - self.at_s[0]) if len(self.at_s) > 2 else 0.0

    def within(self, start_s: float, end_s: float) -> "Beat":
        part = Beat()
        part.at_s = [at for at in self.at_s if start_s <= at <= end_s]
        part.first_s = self.first_s
        return part


async def keep_beat(engine: LlamaCpp, request: ChatRequest, beat: Beat, on_first: Callable[[], object] = lambda: None) -> None:
    is_first = True
    async with engine.chat(request) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                beat.at_s.append(time.monotonic())
                if is_first:
                    is_first = False
                    beat.first_s.add(beat.at_s[-1])
                    on_first()


async def keep_busy(engine: LlamaCpp, request: ChatRequest, beat: Beat, on_first: Callable[[], object] = lambda: None) -> None:
    """Until cancelled: an answer may end by itself at any time, then the next one follows."""
    while True:
        await keep_beat(engine, request, beat, on_first)


class Child:
    """The HTTP side of a running child, for comparing what it says with what we say."""

    def __init__(self, remote: Remote, address: str, key: str) -> None:
        self._remote = remote
        self._address = address
        self._key = key

    async def call(self, path: str, body: object = None) -> bytes:
        request = RemoteRequest(
            method="GET" if body is None else "POST",
            url=self._address + path,
            body=b"" if body is None else msgspec.json.encode(body),
            headers={"authorization": f"Bearer {self._key}", "content-type": "application/json"},
        )
        return (await self._remote.call(request)).body


class _Slot(msgspec.Struct):
    is_processing: bool
    n_prompt_tokens: int = 0


async def tokens_read(child: Child) -> list[int]:
    """Of each busy slot, how much of its prompt has been read."""
    return [slot.n_prompt_tokens for slot in msgspec.json.decode(await child.call("/slots"), type=list[_Slot]) if slot.is_processing]
