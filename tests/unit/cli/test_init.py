"""`qwenbox init` as it is typed, and the file it writes."""

import os
import re
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from qwenbox.cli.main import app
from qwenbox.config import load


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QWENBOX_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def init(*arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(app, ["init", *arguments], input=typed)


def written(folder: Path) -> str:
    return (folder / "qwenbox.toml").read_text("utf-8")


def test_init_writes_the_answers_when_it_is_asked(home: Path) -> None:
    result = init(typed=f"team\n{home}\n0.0.0.0:9001\n")
    assert result.exit_code == 0, result.output
    config = load(environment={"QWENBOX_HOME": str(home)})
    assert ("laptop", "0.0.0.0", 9001, "standard") == (config.profile, config.server.host, config.server.port, config.limits.default_tier)


def test_init_asks_again_when_a_purpose_is_unknown(home: Path) -> None:
    result = init(typed="mainframe\ncloud\n\n\n")
    assert "One of laptop, team, cloud." in result.output
    assert 'profile = "cloud"' in written(home)


def test_init_asks_nothing_when_flags_say_all(home: Path) -> None:
    result = init("--for", "cloud", "--data", str(home), "--address", "8123", typed="")
    assert result.exit_code == 0, result.output
    assert 8123 == load(environment={"QWENBOX_HOME": str(home)}).server.port


def test_init_takes_defaults_when_told_yes(home: Path) -> None:
    assert init("--yes", typed="").exit_code == 0
    config = load(environment={"QWENBOX_HOME": str(home)})
    assert ("laptop", "127.0.0.1", 8000, "") == (config.profile, config.server.host, config.server.port, config.database.url)


@pytest.mark.parametrize("purpose", ["laptop", "team", "cloud"])
def test_every_commented_setting_is_its_default(home: Path, purpose: str) -> None:
    assert init("--yes", "--for", purpose).exit_code == 0
    freed = re.sub(r"(?m)^# (\w+ = (?!\"/run/)\S.*)$", r"\1", written(home))
    other = home.parent / "other"
    other.mkdir()
    (other / "qwenbox.toml").write_text(freed, "utf-8")
    ours = load(environment={"QWENBOX_HOME": str(home)})
    theirs = load(environment={"QWENBOX_HOME": str(other)})
    assert freed != written(home)
    assert [getattr(ours, name) for name in ours.__struct_fields__[1:]] == [getattr(theirs, name) for name in theirs.__struct_fields__[1:]]


@pytest.mark.parametrize("purpose", ["laptop", "team", "cloud"])
def test_every_setting_is_explained_by_the_line_above(home: Path, purpose: str) -> None:
    assert init("--yes", "--for", purpose, "--data", "postgresql://box:word@db.example/box").exit_code == 0
    lines = written(home).splitlines()
    settings = [number for number, line in enumerate(lines) if re.match(r"(# )?\w+ = ", line)]
    assert len(settings) > 10
    assert [] == [lines[number] for number in settings if not re.match(r"# [^=]{15,}|# .* .* ", lines[number - 1])]


def test_init_leaves_the_file_alone_when_there_is_one(home: Path) -> None:
    home.mkdir()
    (home / "qwenbox.toml").write_text("# mine\n")
    result = init("--yes")
    assert (2, "# mine\n") == (result.exit_code, written(home))
    assert "--force" in result.output


def test_init_writes_over_the_file_when_forced(home: Path) -> None:
    home.mkdir()
    (home / "qwenbox.toml").write_text("# mine\n")
    assert init("--yes", "--force").exit_code == 0
    assert 'profile = "laptop"' in written(home)
    assert ["qwenbox.toml"] == os.listdir(home)


def test_init_keeps_a_password_to_its_owner(home: Path) -> None:
    result = init("--yes", "--data", "postgresql://box:secret-word@db.example/box")
    assert stat.S_IMODE((home / "qwenbox.toml").stat().st_mode) == 0o600
    assert "secret-word" not in result.output
    assert "postgresql://box:secret-word@db.example/box" == load(environment={"QWENBOX_HOME": str(home)}).database.url


@pytest.mark.parametrize("data", ["mysql://db.example/box", "postgresql://db.example:port/box", "://", "  "])
def test_init_writes_nothing_when_data_can_live_nowhere(home: Path, data: str) -> None:
    result = init("--yes", "--data", data)
    assert result.exit_code in (1, 2)
    assert result.output.strip()
    assert not (home / "qwenbox.toml").exists()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("9000", ("127.0.0.1", 9000)),
        (":9000", ("127.0.0.1", 9000)),
        ("0.0.0.0", ("0.0.0.0", 8000)),
        ("box.example:80", ("box.example", 80)),
        ("[::1]:8001", ("::1", 8001)),
        ("::1", ("::1", 8000)),
        ("[::]", ("::", 8000)),
    ],
)
def test_an_address_is_read_however_it_is_written(home: Path, address: str, expected: tuple[str, int]) -> None:
    assert init("--yes", "--address", address).exit_code == 0
    server = tomllib.loads(written(home))["server"]
    assert expected == (server["host"], server["port"])


@pytest.mark.parametrize("address", ["127.0.0.1:eighty", "0.0.0.0:70000", "http://127.0.0.1:8000", "a b:80", "127.0.0.1:", "box\x0e:80"])
def test_init_says_what_an_address_is_when_it_is_none(home: Path, address: str) -> None:
    result = init("--yes", "--address", address)
    assert (2, False) == (result.exit_code, (home / "qwenbox.toml").exists())
    assert "0.0.0.0:8000" in result.output


@settings(deadline=None, max_examples=25)
@given(address=st.text(max_size=20), data=st.text(max_size=20).map(lambda text: f"postgresql://{text}"))
def test_init_writes_what_is_read_or_says_why_not(tmp_path_factory: pytest.TempPathFactory, address: str, data: str) -> None:
    folder = tmp_path_factory.mktemp("home")
    result = CliRunner(env={"QWENBOX_HOME": str(folder)}).invoke(app, ["init", "--yes", f"--address={address}", f"--data={data}"])
    if result.exit_code:
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.output.strip()
        assert not (folder / "qwenbox.toml").exists()
    else:
        load(environment={"QWENBOX_HOME": str(folder)})


def test_next_steps_name_the_folder_when_it_is_not_the_usual_one(home: Path) -> None:
    elsewhere = home.parent / "elsewhere"
    assert f"export QWENBOX_HOME={elsewhere}" in init("--yes", "--data", str(elsewhere)).output
    assert "export QWENBOX_HOME" not in init("--yes", "--data", str(home)).output
    assert "DASHSCOPE_API_KEY" in init("--yes", "--force", "--for", "cloud").output


def test_completion_lists_the_commands(home: Path) -> None:
    asked = {"_QWENBOX_COMPLETE": "complete_bash", "COMP_WORDS": "qwenbox ", "COMP_CWORD": "1"}
    offered = CliRunner().invoke(app, [], env=asked, prog_name="qwenbox").output.split()
    assert {"init", "serve", "chat", "keys", "doctor"} <= set(offered)


def test_completion_lists_options_of_a_command(home: Path) -> None:
    asked = {"_QWENBOX_COMPLETE": "complete_bash", "COMP_WORDS": "qwenbox init --f", "COMP_CWORD": "2"}
    assert {"--for", "--force"} <= set(CliRunner().invoke(app, [], env=asked, prog_name="qwenbox").output.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_told_for_every_shell(home: Path, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    told = CliRunner().invoke(app, ["--show-completion", shell], prog_name="qwenbox")
    assert told.exit_code == 0, told.output
    assert "_QWENBOX_COMPLETE=complete_" in told.output
