"""This is where every engine has its one line: its config in the union, its opening in the match."""

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias, assert_never

import msgspec

from qwenbox.clock import Clock
from qwenbox.engines.cloud import Cloud, CloudConfig
from qwenbox.engines.diffusion import Diffusion, DiffusionConfig
from qwenbox.engines.echo.engine import Echo, EchoConfig
from qwenbox.engines.llamacpp.config import Lanes, LlamaCppConfig, LlamaParts, Serves
from qwenbox.engines.llamacpp.engine import LlamaCpp
from qwenbox.engines.llamacpp.vectors import LlamaVectors
from qwenbox.engines.memory import MemoryBudget
from qwenbox.engines.openai_server import OpenAiServer, OpenAiServerConfig
from qwenbox.engines.reader import engine as reader
from qwenbox.engines.reader.engine import ReaderConfig
from qwenbox.engines.reader.pictures import Pictures
from qwenbox.engines.tokenizer import Vocabularies
from qwenbox.engines.vocabulary import Vocabulary
from qwenbox.remote import Remote
from qwenbox.terms.engine import TextEngine
from qwenbox.weights.store import WeightsStore

EngineConfig: TypeAlias = LlamaCppConfig | OpenAiServerConfig | CloudConfig | EchoConfig | ReaderConfig | DiffusionConfig


class EngineParts(msgspec.Struct, frozen=True, kw_only=True):
    """What engines are built from; each takes what it needs. lanes: in a worker, the parent's children (workers/turns.py).

    engines: those that are open already, for an engine around one of them.
    """

    remote: Remote
    store: WeightsStore
    memory: MemoryBudget
    vocabularies: Vocabularies
    clock: Clock
    lanes: Lanes | None = None
    engines: Mapping[str, TextEngine] = {}


@asynccontextmanager
async def open_engine(config: EngineConfig, parts: EngineParts) -> AsyncGenerator[TextEngine]:
    """The engine a `[engine.NAME]` table describes, for as long as the context lasts."""
    match config:
        case EchoConfig():
            yield Echo(config)
        case OpenAiServerConfig():
            yield OpenAiServer(config, parts.remote, vocabulary=_vocabulary(config, parts))
        case CloudConfig():
            yield Cloud(config, parts.remote, vocabulary=_vocabulary(config, parts))
        case LlamaCppConfig() if config.serves is not Serves.TEXT:
            async with LlamaVectors(config, _llama_parts(config, parts)) as vectors:
                yield vectors
        case LlamaCppConfig():
            async with LlamaCpp(config, _llama_parts(config, parts)) as engine:
                yield engine
        case ReaderConfig():
            async with Pictures(config.reading, parts.remote, parts.memory, parts.clock) as pictures:
                yield reader.reading(parts.engines[config.text], pictures, config)
        case DiffusionConfig():
            async with Diffusion(config, parts.remote, parts.memory, parts.clock) as drawing:
                yield drawing
        case _:
            assert_never(config)


def opened_in_order(engines: Mapping[str, EngineConfig]) -> list[tuple[str, EngineConfig]]:
    """Names and configs, those around another engine after all others."""
    return sorted(engines.items(), key=lambda item: isinstance(item[1], ReaderConfig))


def around(engines: Mapping[str, EngineConfig]) -> dict[str, str]:
    """Engines around another one, with its name."""
    return {name: engine.text for name, engine in engines.items() if isinstance(engine, ReaderConfig)}


def misfit(engines: Mapping[str, EngineConfig], redacted: Collection[str]) -> str:
    """What is wrong between them, for people; "" when nothing is. redacted: those whose prompts personal data is taken out of."""
    for name, engine in engines.items():
        if not isinstance(engine, ReaderConfig):
            continue
        inner = engines.get(engine.text)
        if inner is None or isinstance(inner, ReaderConfig):
            return f"[engine.{name}] reads pictures for text = {engine.text!r}, which is no engine of texts"
        if engine.text in redacted and not isinstance(inner, LlamaCppConfig | EchoConfig):
            # What stands in a picture is read below the place where texts are redacted, and would leave the machine as it is.
            return f"[engine.{name}] would send what it reads in pictures past [redaction.{engine.text}]"
    return ""


def _llama_parts(config: LlamaCppConfig, parts: EngineParts) -> LlamaParts:
    store, entry = parts.store, parts.store.entry(config.weights)
    names = (config.weights, entry.projector) if entry.projector else (config.weights,)
    for name in names:
        store.entry(name)  # unknown weights are told at the start

    async def locate() -> Path:
        return store.require(config.weights)

    async def locate_projector() -> Path:
        return store.require(entry.projector)

    return LlamaParts(
        remote=parts.remote,
        memory=parts.memory,
        locate=locate,
        locate_projector=locate_projector if entry.projector else None,
        is_here=lambda: all(store.path(name) is not None for name in names),
        title=entry.title,
        identity=partial(_bytes_of_all, store, names),
        vocabularies=parts.vocabularies,
        clock=parts.clock,
        lanes=parts.lanes,
    )


def _bytes_of_all(store: WeightsStore, names: tuple[str, ...]) -> str:
    known = [_bytes_of(store, name) for name in names]
    return " ".join(known) if all(known) else ""


def _bytes_of(store: WeightsStore, name: str) -> str:
    """The weights by their checksum; the user's own without one by place, size and time of the file, while it is there."""
    checksum, path = store.entry(name).sha256, None if store.entry(name).sha256 else store.path(name)
    if checksum or path is None:
        return checksum
    found = path.stat()
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def _vocabulary(config: OpenAiServerConfig | CloudConfig, parts: EngineParts) -> Vocabulary:
    """Raises ApiError(MODEL_NOT_FOUND) when the catalog has no weights of that name."""
    store = parts.store
    if config.tokenizer:
        store.entry(config.tokenizer)
    names = (config.tokenizer,) if config.tokenizer else tuple(store.entries)

    def places() -> Iterable[Path]:
        return filter(None, map(store.path, names))

    return Vocabulary(places, parts.vocabularies)
