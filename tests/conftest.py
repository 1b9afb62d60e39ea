"""Fixtures every suite shares: boxes on free ports, and an environment nobody else has touched."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import boxes
from boxes import Box
from support import valkey
from support.postgres import Server as PostgresServer
from support.postgres import serve as serve_postgres

# Read before the environment is cleaned below. Where weights lie that these tests may use, instead of the user's own data folder.
_WEIGHTS = os.environ.get("QWENBOX_TEST_WEIGHTS")
_USERS_HOME = Path(os.environ.get("QWENBOX_HOME") or "~/.qwenbox").expanduser()
_IS_FULL = os.environ.get("QWENBOX_FULL_COUNTS") == "1"

# A busy machine is slow for a moment; what must end in time says so itself. Ordinary runs draw the same examples each time, so that
# whoever changed nothing sees nothing new; full counts look for what nobody has met yet.
hypothesis.settings.register_profile("qwenbox", deadline=None, derandomize=not _IS_FULL)
hypothesis.settings.load_profile("qwenbox")

# dashscope reads its variables when it is imported, which collecting test modules does.
for _name in [name for name in os.environ if boxes.is_foreign(name)]:
    del os.environ[_name]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No key, proxy or configuration of the developer's own reaches a test."""
    for name in [name for name in os.environ if boxes.is_foreign(name)]:
        monkeypatch.delenv(name)
    # ~/.dashscope/config.toml and ~/.netrc are read by SDKs.
    monkeypatch.setenv("DASHSCOPE_CONFIG", str(tmp_path_factory.getbasetemp() / "no-dashscope-config.toml"))
    netrc = tmp_path_factory.getbasetemp() / "empty-netrc"
    netrc.touch(mode=0o600)
    monkeypatch.setenv("NETRC", str(netrc))


@pytest.fixture(scope="session")
def is_full() -> bool:
    """Whether full counts and real windows are wanted (`make prove`)."""
    return _IS_FULL


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that all tests share; each takes `new_database()`. Tests that stop it start one of their own."""
    with serve_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box at level `documented` whose every model name is answered by echo."""
    with boxes.serve(tmp_path_factory.mktemp("echo")) as running:
        yield running


@pytest.fixture(scope="session")
def strict_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """As `box`, at level `strict`."""
    with boxes.serve(tmp_path_factory.mktemp("strict"), compat="strict") as running:
        yield running


@pytest.fixture(scope="session")
def catalog_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The laptop's catalog with echo behind it: three models, and unknown names are unknown."""
    with boxes.serve(tmp_path_factory.mktemp("catalog"), profile="laptop", toml=boxes.CATALOG_ON_ECHO) as running:
        yield running


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with links to all files of weights there are, for tests that open an engine without a box."""
    folder = tmp_path_factory.mktemp("gguf")
    for file in (Path(_WEIGHTS) if _WEIGHTS else _USERS_HOME / "weights").rglob("*.gguf"):
        (folder / file.name).symlink_to(file.resolve())
    return folder


@pytest.fixture(scope="session")
def users_weights() -> Path:
    """Where pulled weights lie, and stay for the next run."""
    folder = _USERS_HOME / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def weights_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """The laptop profile on real weights.

    Its engines answer every call: nothing is cached. The weights come from QWENBOX_TEST_WEIGHTS (a folder of files), else the user's own
    data folder, else they are fetched into that.
    """
    home = tmp_path_factory.mktemp("weights")
    toml = boxes.NO_CACHE
    if _WEIGHTS:
        toml += f'[store]\nfolders = ["{_WEIGHTS}"]\nsources = ["local"]\n'
    else:
        users = _USERS_HOME / "weights"
        users.mkdir(parents=True, exist_ok=True)
        (home / "weights").symlink_to(users)
    with boxes.serve(home, profile="laptop", toml=toml, start_s=1_800) as running:
        yield running


@pytest.fixture(scope="session")
def both_weights_box(weights_box: Box) -> Box:
    """`weights_box`, with the weights of qwen-plus and qwen-max put there too."""
    boxes.pull(weights_box, "qwen-plus")
    return weights_box


@pytest.fixture
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator["Stores"]:
    """Databases and Valkey servers for the boxes of one test, started when they are asked for."""
    with contextlib.ExitStack() as stack:
        yield Stores(request, stack, tmp_path)


class Stores:
    def __init__(self, request: pytest.FixtureRequest, stack: contextlib.ExitStack, folder: Path) -> None:
        self._request = request
        self._stack = stack
        self._folder = folder

    def postgres(self) -> str:
        """The URL of an empty database."""
        return self._request.getfixturevalue("postgres").new_database()

    def valkey(self) -> valkey.Server:
        """A server of this test's own."""
        return self._stack.enter_context(valkey.serve(self._folder / "valkey"))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator["Serve"]:
    """Starts further boxes, each with a home of its own, and stops them at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield Serve(stack, tmp_path)


class Serve:
    """serve(profile=…, compat=…, toml=…, environment=…) → Box, see boxes.serve."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._count = 0

    def next_home(self) -> Path:
        """A folder no box has used; not made yet."""
        self._count += 1
        return self._folder / f"box-{self._count}"

    def __call__(self, home: Path | None = None, **settings) -> Box:
        return self._stack.enter_context(boxes.serve(home or self.next_home(), **settings))


@pytest.fixture
def weights_serve(serve: Serve, weights_box: Box) -> "WeightsServe":
    """Starts further boxes on the real weights that `weights_box` uses."""
    return WeightsServe(serve, weights_box)


class WeightsServe:
    """weights_serve(toml) → Box of the laptop profile with these settings on top."""

    def __init__(self, serve: Serve, base: Box) -> None:
        self._serve = serve
        self._base = base

    def __call__(self, toml: str = "") -> Box:
        home = self._serve.next_home()
        home.mkdir()
        (home / "weights").symlink_to((self._base.home / "weights").resolve())
        return self._serve(home, profile="laptop", toml=toml if "[cache]" in toml else toml + boxes.NO_CACHE)
