"""What engines over a file of weights share: lanes of their own or of somebody else, and what they say of themselves meanwhile."""

from pathlib import Path

import msgspec
import pytest

from qwenbox.engines.llamacpp.config import LlamaCppConfig, LlamaParts
from qwenbox.engines.llamacpp.engine import LlamaCpp
from qwenbox.engines.llamacpp.lane import ChildLanes
from qwenbox.engines.llamacpp.vectors import LlamaVectors
from qwenbox.engines.memory import MemoryBudget
from qwenbox.remote import Remote
from qwenbox.terms.engine import HealthState

ENGINES = pytest.mark.parametrize("kind", [LlamaCpp, LlamaVectors])


def _parts(remote: Remote, path: Path) -> LlamaParts:
    async def locate() -> Path:
        return path

    return LlamaParts(remote=remote, memory=MemoryBudget(8_000_000_000), locate=locate, is_here=path.is_file, title="Tiny")


def _config() -> LlamaCppConfig:
    return msgspec.convert({"kind": "llamacpp", "weights": "tiny"}, LlamaCppConfig)


@pytest.mark.anyio
@ENGINES
async def test_engine_is_missing_until_its_file_is_here_and_idle_then(kind: type[LlamaCpp | LlamaVectors], tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    async with Remote() as remote, kind(_config(), _parts(remote, path)) as engine:
        assert not engine.is_here
        missing = await engine.health()
        path.touch()
        assert engine.is_here
        idle = await engine.health()
        lanes = engine.children()
    assert HealthState.MISSING is missing.state
    assert "qwenbox pull tiny" in missing.detail
    assert HealthState.IDLE is idle.state
    assert [0, 0] == [lane.starts for lane in lanes]


@pytest.mark.anyio
@ENGINES
async def test_engine_has_no_children_of_its_own_in_lanes_of_somebody_else(kind: type[LlamaCpp | LlamaVectors], tmp_path: Path) -> None:
    async with Remote() as remote:
        parts = _parts(remote, tmp_path / "tiny.gguf")
        async with ChildLanes(_config(), parts.title, parts.memory, parts.clock) as lanes:
            async with kind(_config(), msgspec.structs.replace(parts, lanes=lanes)) as engine:
                assert engine.shared is lanes.shared
                assert engine.exact is lanes.exact
                assert () == engine.children()
            # The lanes outlive whoever was lent them.
            assert HealthState.IDLE is await lanes.shared.state()
