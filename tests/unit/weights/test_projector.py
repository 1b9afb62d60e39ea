"""Weights that see are two files, fetched and loaded together."""

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from qwenbox import config as configs
from qwenbox.cli.main import app
from qwenbox.cli.pull import together, wanted_weights
from qwenbox.weights.entry import WeightsEntry


def test_pull_of_a_model_that_sees_brings_its_projector(tmp_path: Path) -> None:
    config = configs.load(environment={"QWENBOX_HOME": str(tmp_path), "QWENBOX_PROFILE": "laptop"})

    wanted = wanted_weights(config, "qwen-vl-plus")

    assert ("qwen3-vl-2b-instruct-q4_k_m", "mmproj-qwen3-vl-2b-instruct-q8_0") == wanted[:2]
    assert wanted[:2] == wanted_weights(config, "qwen3-vl-2b-instruct-q4_k_m")


def test_every_projector_of_the_catalog_is_an_entry_of_the_same_repository(tmp_path: Path) -> None:
    config = configs.load(environment={"QWENBOX_HOME": str(tmp_path), "QWENBOX_PROFILE": "laptop"})
    seeing = {name: entry for name, entry in config.weights.items() if entry.projector}

    assert len(seeing) >= 3
    for name, entry in seeing.items():
        assert config.weights[entry.projector].repository == entry.repository
        assert (name, entry.projector) == together(config, name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "weights from a repository need `bytes` and `sha256`"),
        ({"is_unverified": True, "sha256": "a" * 64}, "weights with a `sha256` are verified; leave out `is_unverified`"),
    ],
)
def test_unknown_checksum_must_be_said(fields: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({"title": "t", "repository": "a/b", "file": "f.gguf", **fields}, WeightsEntry)


def test_unverified_entry_needs_no_size() -> None:
    entry = WeightsEntry(title="t", repository="a/b", file="f.gguf", is_unverified=True)

    assert (0, "") == (entry.bytes, entry.sha256)


CATALOG = """
[weights.my-vl]
title = "My VL"
url = "http://127.0.0.1:1/model.gguf"
file = "model.gguf"
projector = "my-mmproj"
[weights.my-mmproj]
title = "My projector"
url = "http://127.0.0.1:1/mmproj.gguf"
file = "mmproj.gguf"
"""


@pytest.mark.parametrize(
    ("origin", "here"),
    [("mmproj.gguf", ["my-mmproj"]), ("model.gguf", ["my-vl"]), ("renamed.gguf", ["my-vl"]), ("", ["my-mmproj", "my-vl"])],
)
def test_pull_from_a_file_takes_it_for_the_one_it_is(tmp_path: Path, origin: str, here: list[str]) -> None:
    home, folder = tmp_path / "home", tmp_path / "files"
    home.mkdir()
    folder.mkdir()
    (home / "qwenbox.toml").write_text(CATALOG)
    for name in ("model.gguf", "mmproj.gguf", "renamed.gguf"):
        (folder / name).write_bytes(b"GGUF" + name.encode())

    done = CliRunner().invoke(app, ["pull", "my-vl", "--from", str(folder / origin), "--json"], env={"QWENBOX_HOME": str(home)})

    assert 0 == done.exit_code, done.output
    assert here == sorted(path.parent.name for path in (home / "weights").glob("*/*.gguf"))
