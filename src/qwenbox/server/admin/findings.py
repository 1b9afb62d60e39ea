"""This is where a box is looked into: what is wrong with its machine, its weights and its models, and what to do about it."""

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from qwenbox.client.system import Finding, System
from qwenbox.weights.entry import Presence
from qwenbox.weights.store import WeightsStore

ANSWERING: Final = frozenset({"ready", "idle", "starting"})
_LOG: Final = "Look at the box's log."


def home(folder: Path, needed_bytes: int) -> Finding:
    """Whether the data folder can be written, and takes what is still to come."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            free_bytes = shutil.disk_usage(folder).free
    except OSError as error:
        facts = {"home": str(folder), "reason": error.strerror or str(error)}
        todo = "Make the folder writable, or point QWENBOX_HOME at another."
        found = f"{folder}: {error.strerror}"
        return Finding(check="home", verdict="failed", found=found, todo=todo, code="home_unwritable", facts=facts)
    facts = {"home": str(folder), "free": f"{free_bytes / 1e9:.1f} GB", "needed": f"{needed_bytes / 1e9:.1f} GB"}
    found = f"{folder} is writable, {facts['free']} free"
    if free_bytes < needed_bytes:
        todo = f"Missing weights need {facts['needed']}: free some space."
        return Finding(check="home", verdict="warning", found=found, todo=todo, code="home_full", facts=facts)
    return Finding(check="home", verdict="ok", found=found, code="home_ok", facts=facts)


def engine() -> Finding:
    """Whether the embedded engine can run on this machine."""
    if find_spec("xllamacpp") is None:
        found, todo = "xllamacpp is not installed", "pip install xllamacpp"
        return Finding(check="engine", verdict="failed", found=found, todo=todo, code="engine_missing")
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libgomp.so.1")
        except OSError:
            found = "libgomp.so.1 is missing, which llama.cpp needs"
            todo = "Install it: apt-get install libgomp1 (Debian, Ubuntu), dnf install libgomp (Fedora)."
            return Finding(check="engine", verdict="failed", found=found, todo=todo, code="engine_library")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"xllamacpp and its libraries are here, {cores} cores"
    return Finding(check="engine", verdict="ok", found=found, code="engine_ok", facts={"cores": str(cores)})


def needed_bytes(store: WeightsStore, names: Collection[str], margin_bytes: int) -> int:
    """What the disk must still take for all of these weights to be here."""
    return sum(store.entry(name).bytes for name in set(names) if store.path(name) is None) + margin_bytes


def weights(store: WeightsStore, users: Mapping[str, Collection[str]], default: Collection[str]) -> Iterable[Finding]:
    """One for each file of weights. users: names of models by the weights' name. default: weights without which the first model is mute."""
    for name, models in users.items():
        state, title = store.state(name), store.entry(name).title
        facts = {"title": title, "models": ", ".join(models), "name": name}
        label = f"{title} ({facts['models']})"
        match state.presence:
            case Presence.HERE:
                found = f"{label}: here, size and time as when they were hashed"
                yield Finding(check="weights", verdict="ok", found=found, code="weights_here", facts=facts)
            case Presence.FETCHING:
                facts["share"] = f"{state.fraction:.0%}" if state.fraction is not None else ""
                found = f"{label}: being fetched {facts['share']}".rstrip()
                yield Finding(check="weights", verdict="ok", found=found, code="weights_fetching", facts=facts)
            case Presence.MISSING | Presence.PARTIAL:
                found, todo = f"{label}: not here", f"qwenbox pull {name}"
                verdict = "failed" if name in default else "warning"
                yield Finding(check="weights", verdict=verdict, found=found, todo=todo, code="weights_missing", facts=facts)


def model(name: str, states: Collection[str]) -> Finding:
    """What a model would do with a call now. states: of its deployments, best first."""
    facts = {"model": name, "states": ", ".join(states)}
    found = ", then ".join(states) or "no deployment"
    if any(state in ANSWERING for state in states):
        return Finding(check=name, verdict="ok", found=found, code="model_ok", facts=facts)
    is_missing = "missing" in states
    todo, code = (f"qwenbox pull {name}", "model_missing") if is_missing else (_LOG, "model_down")
    return Finding(check=name, verdict="warning", found=found, todo=todo, code=code, facts=facts)


def running(system: System) -> Iterable[Finding]:
    """What the state of a running box tells."""
    kind = system.database.kind
    if system.database.is_open:
        yield Finding(check="database", verdict="ok", found=f"{kind} takes every row", code="database_ok", facts={"kind": kind})
    else:
        found, todo = f"{kind} does not take rows; calls are refused until it does", "See that the database runs, and has space."
        yield Finding(check="database", verdict="failed", found=found, todo=todo, code="database_closed", facts={"kind": kind})
    if system.valkey == "up":
        yield Finding(check="valkey", verdict="ok", found="the shared store answers", code="valkey_ok")
    elif system.valkey == "down":
        found, todo = "the shared store does not answer", "See that Valkey runs at the address of [valkey] url."
        yield Finding(check="valkey", verdict="failed", found=found, todo=todo, code="valkey_down")
    for child in system.children:
        if child.restarts:
            facts = {"engine": child.engine, "count": str(child.restarts)}
            found = f"the child of {child.engine} was started again {child.restarts} times after it had crashed"
            todo = f"{_LOG} Too little memory is the usual cause: lower kv_tokens or slots of [engine.{child.engine}]."
            yield Finding(check="children", verdict="warning", found=found, todo=todo, code="child_crashed", facts=facts)
    for standing in system.standings:
        if standing.open_in:
            found = f"{standing.deployment} kept failing and is left alone for a while"
            todo = "See that its server answers, and that its key is good."
            facts = {"deployment": standing.deployment}
            yield Finding(check="upstream", verdict="warning", found=found, todo=todo, code="deployment_resting", facts=facts)
