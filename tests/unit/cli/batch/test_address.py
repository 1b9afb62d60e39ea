"""Whom `qwenbox batch` asks, and which key goes there: never one that belongs elsewhere."""

from pathlib import Path

import pytest

from qwenbox.cli.batch import address
from qwenbox.config import Config, load
from qwenbox.terms.errors import ApiError

DASHSCOPE = {"DASHSCOPE_HTTP_BASE_URL": "https://dashscope.aliyuncs.com/api/v1", "DASHSCOPE_API_KEY": "sk-d"}
OPENAI = {"OPENAI_BASE_URL": "http://box:8000/compatible-mode/v1", "OPENAI_API_KEY": "sk-o"}


def config(tmp_path: Path, **environment: str) -> Config:
    return load({"profile": "echo"}, {"QWENBOX_HOME": str(tmp_path), **environment})


@pytest.mark.parametrize(
    ("base_url", "key", "environment", "expected"),
    [
        ("", "", DASHSCOPE, ("https://dashscope.aliyuncs.com/compatible-mode/v1", "sk-d")),
        ("", "", {**DASHSCOPE, **OPENAI}, ("http://box:8000/compatible-mode/v1", "sk-o")),
        ("", "", {**OPENAI, "QWENBOX_BASE_URL": "http://q/", "QWENBOX_API_KEY": "sk-q"}, ("http://q/compatible-mode/v1", "sk-q")),
        ("", "sk-mine", DASHSCOPE, ("https://dashscope.aliyuncs.com/compatible-mode/v1", "sk-mine")),
        ("https://other/v1", "", {**DASHSCOPE, **OPENAI}, ("https://other/v1", "sk-d")),
        ("https://other/v1", "", OPENAI, ("https://other/v1", "sk-o")),
        ("", "", {"DASHSCOPE_API_KEY": "sk-d", "OPENAI_API_KEY": "sk-o"}, ("http://127.0.0.1:8000/compatible-mode/v1", "sk-d")),
    ],
)
def test_an_address_gets_the_key_beside_it(
    tmp_path: Path, base_url: str, key: str, environment: dict[str, str], expected: tuple[str, str]
) -> None:
    found = address.found(config(tmp_path), base_url, key, environment)
    assert expected == (found.address, found.key.reveal())
    assert found.is_own is expected[0].startswith("http://127.0.0.1")


def test_the_settings_own_key_stays_here(tmp_path: Path) -> None:
    settings = config(tmp_path, QWENBOX_API_KEY="sk-preset")
    assert "sk-preset" == address.found(settings, "", "", {}).key.reveal()
    with pytest.raises(ApiError, match="No API key"):
        address.found(settings, "https://other/v1", "", {})
    with pytest.raises(ApiError, match="No API key"):
        # OpenAI's own is for an address that was named.
        address.found(config(tmp_path), "", "", {"OPENAI_API_KEY": "sk-o"})
