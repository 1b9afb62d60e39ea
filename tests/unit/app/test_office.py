"""The office of a box: what it says where it cannot be opened."""

from pathlib import Path

import pytest

from qwenbox.app.office import open_office
from qwenbox.config import ConfigError, load

pytestmark = pytest.mark.anyio


async def test_office_says_what_is_wrong_when_the_data_folder_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("QWENBOX_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(ConfigError, match=r"The data folder .*home cannot be made: Not a directory\. Choose another one with QWENBOX_HOME"):
        async with open_office(load({"profile": "echo"})):
            pass
