"""This is where the bodies about the box itself have their shapes: how it does, what is wrong, how it is set."""

from typing import Literal, TypeAlias

from qwenbox.client.shapes import CacheState, Told

Verdict: TypeAlias = Literal["ok", "warning", "failed"]


class Finding(Told, frozen=True, kw_only=True):
    """One check. found: what is so; todo: what to do about it, "" when nothing is wrong.

    code: names the sentence for programs that say it in other words; facts: what stands in it.
    """

    check: str
    verdict: Verdict
    found: str
    todo: str = ""
    code: str = ""
    facts: dict[str, str] = {}


class ProcessState(Told, frozen=True, kw_only=True):
    """A process of the box, its engines' children apart. cpu_s: used since its start. memory_bytes: resident."""

    name: str
    cpu_s: float
    memory_bytes: int


class EngineChild(Told, frozen=True, kw_only=True):
    """A child process of an engine. starts: loads on demand included; restarts: those of them after a crash.

    memory_bytes: the weights that it mapped included; 0 while it does not run.
    """

    engine: str
    role: str
    is_ready: bool
    starts: int
    restarts: int
    memory_bytes: int


class EngineQueue(Told, frozen=True, kw_only=True):
    """Who runs on an engine and who waits for it. slots, kv_tokens: what it holds, null where that is not counted. waiting: by lane."""

    name: str
    slots: int | None
    slots_used: int
    kv_tokens: int | None
    kv_tokens_used: int
    waiting: dict[str, int]


class Standing(Told, frozen=True, kw_only=True):
    """What became of the attempts at a deployment since the start. open_in: processes that leave it alone, since it kept failing."""

    deployment: str
    answered: int
    failed: int
    retries: int
    open_in: int


class DatabaseState(Told, frozen=True, kw_only=True):
    """kind: sqlite or postgresql. bytes: null where it does not tell. is_open: calls' rows are taken, in every process."""

    kind: str
    revision: str
    bytes: int | None
    is_open: bool


class System(Told, frozen=True, kw_only=True):
    """The box. workers: processes that answer calls. in_progress: requests that are being answered now.

    memory_limit_bytes: what weights may take together. disk_*: where its data lies. valkey: "off", "up" or "down".
    """

    version: str
    python: str
    platform: str
    started_at: float
    uptime_s: float
    profile: str
    home: str
    workers: int
    in_progress: int
    memory_limit_bytes: int
    disk_free_bytes: int
    disk_total_bytes: int
    valkey: str
    database: DatabaseState
    cache: CacheState
    processes: tuple[ProcessState, ...]
    children: tuple[EngineChild, ...]
    queues: tuple[EngineQueue, ...]
    standings: tuple[Standing, ...]


class Setting(Told, frozen=True, kw_only=True):
    """One setting in force. name: with dots, as in qwenbox.toml. value: as JSON; "…" where it is a secret or an engine's address."""

    name: str
    value: str
    is_default: bool
    is_hidden: bool
