"""Which vocabulary a server's texts are counted with, and which files embedded weights need."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from qwenbox.clock import SystemClock
from qwenbox.engines.llamacpp.config import LlamaCppConfig
from qwenbox.engines.memory import MemoryBudget
from qwenbox.engines.openai_server import OpenAiServerConfig
from qwenbox.engines.reader.engine import ReaderConfig
from qwenbox.engines.registry import EngineParts, around, misfit, open_engine, opened_in_order
from qwenbox.engines.tokenizer import Vocabularies
from qwenbox.remote import Remote
from qwenbox.terms.engine import HealthState, TextCounter, WeightsHolder
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.model import Capability
from qwenbox.weights.entry import WeightsConfig, WeightsEntry
from qwenbox.weights.store import WeightsStore
from support.tiny_gguf import MERGES, ORDINARY, TINY, Value, write_gguf
from support.tiny_vision import build

pytestmark = pytest.mark.anyio

# A vocabulary without the last two merges, which make " user" of letters.
_POOR_MERGES = MERGES[:-2]
_POOR = [*ORDINARY[: -len(MERGES)], *(merge.replace(" ", "") for merge in _POOR_MERGES)]
POOR: dict[str, Value] = TINY | {
    "tokenizer.ggml.tokens": _POOR,
    "tokenizer.ggml.token_type": [1] * len(_POOR),
    "tokenizer.ggml.merges": _POOR_MERGES,
}


@pytest.fixture(name="parts")
async def _parts(tmp_path: Path) -> AsyncIterator[EngineParts]:
    """A catalog of a file that is not here, one that is no weights, and two vocabularies."""
    (tmp_path / "broken").write_bytes(b"GGUF?")
    files = {"missing": tmp_path / "missing", "broken": tmp_path / "broken"}
    files |= {"tiny": write_gguf(tmp_path / "tiny", TINY), "poor": write_gguf(tmp_path / "poor", POOR)}
    entries = {name: WeightsEntry(title=name, path=str(path)) for name, path in files.items()}
    async with Remote() as remote:
        yield EngineParts(
            remote=remote,
            store=WeightsStore(tmp_path, entries, WeightsConfig()),
            memory=MemoryBudget(0),
            vocabularies=Vocabularies(),
            clock=SystemClock(),
        )


async def counts(parts: EngineParts, tokenizer: str) -> tuple[bool, list[int] | None]:
    """Whether the vocabulary is said to be the server's own, and what it makes of "user"."""
    async with open_engine(OpenAiServerConfig(address="http://127.0.0.1:1/v1", tokenizer=tokenizer), parts) as engine:
        assert isinstance(engine, TextCounter)
        return engine.has_own_vocabulary, await engine.count_texts(["user"])


async def test_a_server_is_counted_with_the_vocabulary_its_table_names(parts: EngineParts) -> None:
    assert (True, [4]) == await counts(parts, "poor")


async def test_a_server_is_counted_with_the_first_usable_vocabulary_when_its_table_names_none(parts: EngineParts) -> None:
    assert (False, [1]) == await counts(parts, "")


@pytest.mark.parametrize("name", ["missing", "broken"])
async def test_no_other_vocabulary_stands_in_for_the_one_that_is_named(parts: EngineParts, name: str) -> None:
    assert (True, None) == await counts(parts, name)


async def test_a_tokenizer_that_is_not_in_the_catalog_is_refused_at_start(parts: EngineParts) -> None:
    with pytest.raises(ApiError) as refused:
        await counts(parts, "nothing")
    assert ErrorKind.MODEL_NOT_FOUND is refused.value.kind


async def test_weights_see_when_both_their_files_are_here(parts: EngineParts, tmp_path: Path) -> None:
    files = build(tmp_path)
    entries = {
        "tiny-vl": WeightsEntry(title="Tiny VL", path=str(files.model), projector="mmproj"),
        "mmproj": WeightsEntry(title="Projector", path=str(files.projector)),
        "tiny": WeightsEntry(title="Tiny", path=str(tmp_path / "tiny")),
        "stray": WeightsEntry(title="Stray", path=str(files.model), projector="nowhere"),
    }
    parts = msgspec.structs.replace(parts, store=WeightsStore(tmp_path, entries, WeightsConfig()))
    async with open_engine(LlamaCppConfig(weights="tiny-vl"), parts) as sees, open_engine(LlamaCppConfig(weights="tiny"), parts) as blind:
        assert isinstance(sees, WeightsHolder)
        assert (True, True, False) == (
            sees.is_here,
            Capability.VISION in sees.facts.capabilities,
            Capability.VISION in blind.facts.capabilities,
        )
        identity = sees.facts.identity
        assert str(files.projector) in identity
        files.projector.unlink()
        assert not sees.is_here
        assert (HealthState.MISSING, "") == ((await sees.health()).state, sees.facts.identity)
    with pytest.raises(ApiError) as refused:
        async with open_engine(LlamaCppConfig(weights="stray"), parts):
            pass
    assert ErrorKind.MODEL_NOT_FOUND is refused.value.kind


def test_engines_around_others_are_opened_after_them() -> None:
    engines = {"reader": ReaderConfig(text="large"), "large": LlamaCppConfig(weights="w")}
    assert ["large", "reader"] == [name for name, _ in opened_in_order(engines)]
    assert {"reader": "large"} == around(engines)


@pytest.mark.parametrize(
    ("text", "redacted", "wrong"),
    [
        ("large", (), ""),
        ("large", ("large",), ""),
        ("server", (), ""),
        ("server", ("server",), "past [redaction.server]"),
        ("nobody", (), "no engine of texts"),
        ("reader", (), "no engine of texts"),
    ],
)
def test_readers_fit_engines_of_texts_that_hide_nothing_from_others(text: str, redacted: tuple[str, ...], wrong: str) -> None:
    engines = {
        "reader": ReaderConfig(text=text),
        "large": LlamaCppConfig(weights="w"),
        "server": OpenAiServerConfig(address="http://127.0.0.1:1/v1"),
    }
    said = misfit(engines, redacted)
    assert wrong in said and bool(wrong) == bool(said)
