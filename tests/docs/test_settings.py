"""Settings that the pages show are settings that the box reads."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from qwenbox.config import load
from support.markdown import Block, pages

BLOCKS = {f"{page.name}:{block.line}": block for page in pages() for block in page.blocks}
OF_TOML = {where: block for where, block in BLOCKS.items() if block.language == "toml" and not block.reason}
OF_DATA = {where: block for where, block in BLOCKS.items() if block.language in ("json", "yaml") and not block.reason}


@pytest.mark.parametrize("where", OF_TOML)
def test_settings_of_a_page_are_read(where: str, tmp_path: Path) -> None:
    shown = tomllib.loads(OF_TOML[where].text)
    (tmp_path / "qwenbox.toml").write_text(OF_TOML[where].text, "utf-8")
    config = load(environment={"QWENBOX_HOME": str(tmp_path), "QWENBOX_PROFILE": str(shown.get("profile", "hybrid"))})
    assert config.home == tmp_path


def parsed(block: Block) -> object:
    return yaml.safe_load(block.text) if block.language == "yaml" else json.loads(block.text)


@pytest.mark.parametrize("where", OF_DATA)
def test_data_of_a_page_can_be_parsed(where: str) -> None:
    assert parsed(OF_DATA[where])


def test_settings_are_found() -> None:
    assert len(OF_TOML) > 30
