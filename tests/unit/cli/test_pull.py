"""Which weights a name stands for, and what people read while they are fetched."""

from pathlib import Path

import pytest

from qwenbox.cli.pull import describe, wanted_weights, watched
from qwenbox.config import Config, load
from qwenbox.terms.errors import ApiError
from qwenbox.weights.entry import Phase, Progress, Source

SMALL, LARGE = "qwen2.5-coder-0.5b-instruct-q4_k_m", "qwen2.5-coder-1.5b-instruct-q4_k_m"


def laptop(tmp_path: Path) -> Config:
    return load({"profile": "laptop"}, {"QWENBOX_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("name", "weights"), [(None, SMALL), ("qwen-turbo", SMALL), ("qwen-plus-latest", LARGE), ("qwen-max", LARGE), (LARGE, LARGE)]
)
def test_name_stands_for_the_weights_its_engines_load(tmp_path: Path, name: str | None, weights: str):
    assert (weights,) == wanted_weights(laptop(tmp_path), name)


def test_unknown_name_is_refused_with_the_known_ones(tmp_path: Path):
    with pytest.raises(ApiError, match="qwen-turbo, qwen-plus, qwen-max"):
        wanted_weights(laptop(tmp_path), "qwen-9")


def test_model_that_needs_no_weights_says_so(tmp_path: Path):
    config = load({"profile": "echo"}, {"QWENBOX_HOME": str(tmp_path)})
    assert () == wanted_weights(config, None)
    with pytest.raises(ApiError, match="needs no weights here"):
        wanted_weights(config, "qwen-turbo")


def test_progress_elsewhere_than_on_a_terminal_is_a_line_per_phase(capfd: pytest.CaptureFixture[str]):
    with watched("Model") as progress:
        for done in range(0, 100, 10):
            progress(Progress(name="m", phase=Phase.FETCHING, source=Source.HUB, done_bytes=done, total_bytes=100, rate_bytes_s=2e6))
        progress(Progress(name="m", phase=Phase.CHECKING, source=Source.HUB, done_bytes=100, total_bytes=100))
    assert ["Model: from hub 0% at 2.0 MB/s, 0 s to go", "Model: checking its sha256 100%"] == capfd.readouterr().err.splitlines()


def test_every_phase_has_words():
    assert len(Phase) == len({describe(Progress(name="m", phase=phase)) for phase in Phase})
