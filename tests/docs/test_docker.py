"""docker/: what can be checked without running it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
import yaml

from boxes import Box
from qwenbox.cli.main import app
from qwenbox.config import load
from qwenbox.db import is_postgres
from support.markdown import ROOT

DOCKER = ROOT / "docker"
COMMANDS = set(typer.main.get_command(app).commands)
KNOWN = re.findall(r'"(QWENBOX_\w+)"', (ROOT / "src" / "qwenbox" / "config.py").read_text("utf-8"))


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, continued lines joined."""
    lines = [line for line in (DOCKER / "Dockerfile").read_text("utf-8").splitlines() if not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def of_last_stage(word: str) -> list[str]:
    told = instructions()
    last = max(at for at, (name, _) in enumerate(told) if name == "FROM")
    return [rest for name, rest in told[last:] if name == word]


@pytest.fixture(scope="module")
def compose() -> dict[str, dict[str, dict[str, object]]]:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))


def test_image_copies_what_is_there_and_not_ignored() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").split()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, source


def test_image_runs_as_nobody_with_its_state_in_a_volume() -> None:
    assert ["10001"] == of_last_stage("USER")
    assert ["/data"] == of_last_stage("VOLUME")
    assert "libgomp1" in of_last_stage("RUN")[0]
    assert "QWENBOX_HOME=/data" in of_last_stage("ENV")[0].split()


def test_image_sets_only_variables_that_the_box_reads() -> None:
    named = re.findall(r"QWENBOX_\w+(?==)", of_last_stage("ENV")[0])
    assert len(named) >= 3
    assert [] == [name for name in named if name not in KNOWN]


def test_image_starts_a_command_that_exists() -> None:
    assert ["qwenbox"] == json.loads(of_last_stage("ENTRYPOINT")[0])
    assert json.loads(of_last_stage("CMD")[0])[0] in COMMANDS


def test_image_is_healthy_only_while_the_box_answers(box: Box) -> None:
    check = json.loads(of_last_stage("HEALTHCHECK")[0].partition("CMD ")[2])
    command = [sys.executable, *check[1:]]
    assert "python" == check[0]
    for port, status in ((str(box.port), 0), ("1", 1)):
        ran = subprocess.run(command, env={**os.environ, "QWENBOX_PORT": port}, capture_output=True, check=False, timeout=60)
        assert status == ran.returncode, ran.stderr


def test_services_wait_for_services_that_tell_their_health(compose: dict[str, dict[str, dict[str, object]]]) -> None:
    services = compose["services"]
    awaited = services["box"]["depends_on"]
    assert isinstance(awaited, dict)
    assert {"postgres", "valkey"} == set(awaited)
    assert [] == [name for name in awaited if "healthcheck" not in services[name]]


def test_services_use_volumes_that_are_declared(compose: dict[str, dict[str, dict[str, object]]]) -> None:
    used = {str(volume).partition(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])}
    assert used == set(compose["volumes"])


def test_box_of_compose_is_told_what_it_understands(compose: dict[str, dict[str, dict[str, object]]], tmp_path: Path) -> None:
    service = compose["services"]["box"]
    told = {name: re.sub(r"\$\{\w+:[?-][^}]*\}", "word", str(value)) for name, value in service["environment"].items()}
    assert [] == [name for name in told if name not in KNOWN]
    config = load(environment={**told, "QWENBOX_HOME": str(tmp_path)})
    assert is_postgres(config.database_url)
    assert config.server.workers > 1
    assert "valkey" in config.valkey.url.reveal()


def test_settings_for_a_gpu_are_read(tmp_path: Path, compose: dict[str, dict[str, dict[str, object]]]) -> None:
    shutil.copy(DOCKER / "gpu.toml", tmp_path / "qwenbox.toml")
    config = load(environment={"QWENBOX_HOME": str(tmp_path)})
    assert ("gpu", "large") == next(model for model in config.model if model.name == "qwen-plus").deployments
    command = compose["services"]["vllm"]["command"]
    assert isinstance(command, list)
    assert config.engine["gpu"].model == command[command.index("--served-model-name") + 1]


def test_unit_is_one_that_systemd_reads(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not here")
    unit = (DOCKER / "qwenbox.service").read_text("utf-8").replace("/opt/qwenbox/bin/qwenbox", sys.executable)
    (tmp_path / "qwenbox.service").write_text(unit)
    ran = subprocess.run([tool, "verify", str(tmp_path / "qwenbox.service")], capture_output=True, text=True, check=False, timeout=60)
    # It warns of what it ignores, such as a misspelled setting, and ends with 0 all the same.
    assert (0, "") == (ran.returncode, "\n".join(line for line in ran.stderr.splitlines() if "qwenbox.service" in line))


def test_unit_starts_a_command_that_exists() -> None:
    unit = (DOCKER / "qwenbox.service").read_text("utf-8")
    program, command = shlex.split(re.findall(r"(?m)^ExecStart=(.*)$", unit)[0])
    assert ("qwenbox", True) == (Path(program).name, command in COMMANDS)
    assert set(re.findall(r"(?m)^Environment=.*?(QWENBOX_\w+)=", unit)) <= set(KNOWN)
