"""The file of the user's own models: what is written is what `config` reads."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from qwenbox.cli.own_models import OwnModels
from qwenbox.config import load
from qwenbox.gateway.catalog import ModelEntry
from qwenbox.terms.errors import ApiError
from qwenbox.terms.model import Capability, ModelCard
from qwenbox.weights.entry import WeightsEntry

ENTRY = WeightsEntry(title='Quote " and \\ and \x7f and 模型', path="/models/m.gguf")
CARD = ModelCard(context_tokens=8_192, capabilities=frozenset({Capability.CHAT, Capability.TOOLS}), is_cumulative_default=False)


def model(name: str) -> ModelEntry:
    return ModelEntry(name=name, aliases=(f"{name}-latest",), card=CARD, deployments=(name,))


def test_added_model_is_read_back_as_it_was(tmp_path: Path):
    OwnModels(tmp_path).add(model("mine.v1"), ENTRY)
    config = load({}, {"QWENBOX_HOME": str(tmp_path)})
    read = next(entry for entry in config.model if entry.name == "mine.v1")
    assert model("mine.v1") == msgspec.structs.replace(read, created_at=model("mine.v1").created_at)
    assert ENTRY == config.weights["mine.v1"]
    assert ("mine.v1", 8_192, 32_768) == (
        config.engine["mine.v1"].weights,
        config.engine["mine.v1"].context_tokens,
        config.engine["mine.v1"].kv_tokens,
    )


def test_shipped_models_stay_beside_the_users_own(tmp_path: Path):
    before = [entry.name for entry in load({}, {"QWENBOX_HOME": str(tmp_path)}).model]
    OwnModels(tmp_path).add(model("mine"), ENTRY)
    assert [*before, "mine"] == [entry.name for entry in load({}, {"QWENBOX_HOME": str(tmp_path)}).model]


def test_removed_model_leaves_the_others(tmp_path: Path):
    own = OwnModels(tmp_path)
    own.add(model("one"), ENTRY)
    own.add(model("two"), ENTRY)
    OwnModels(tmp_path).remove("one")
    assert ("two",) == OwnModels(tmp_path).names
    tables = tomllib.loads((tmp_path / "models.toml").read_text("utf-8"))
    assert (["two"], ["two"]) == (list(tables["weights"]), list(tables["engine"]))


def test_keys_a_person_added_are_kept(tmp_path: Path):
    written = {
        "compat": "strict",
        "engine": {"mine": {"kind": "llamacpp", "weights": "mine", "slots": 2, "child": {"start_s": 1.5}}},
        "model": [{"name": "mine", "deployments": ["mine"], "card": {"context_tokens": 1, "sampling": {"top_k": 5}}}],
    }
    (tmp_path / "models.toml").write_text(
        'compat = "strict"\n[engine.mine]\nkind = "llamacpp"\nweights = "mine"\nslots = 2\nchild.start_s = 1.5\n'
        '[[model]]\nname = "mine"\ndeployments = ["mine"]\n[model.card]\ncontext_tokens = 1\nsampling = { top_k = 5 }\n'
    )
    own = OwnModels(tmp_path)
    own.add(model("two"), ENTRY)
    own.remove("two")
    assert written == {
        name: value for name, value in tomllib.loads((tmp_path / "models.toml").read_text("utf-8")).items() if name != "weights"
    }


@pytest.mark.parametrize("text", ["not toml", "model = 3"])
def test_unreadable_file_is_named(tmp_path: Path, text: str):
    (tmp_path / "models.toml").write_text(text)
    with pytest.raises(ApiError, match=r"models\.toml"):
        assert OwnModels(tmp_path).names
