"""This is where all settings come together: profile, TOML files, environment, flags → one frozen value, read once."""

import os
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TypeAlias

import msgspec

from qwenbox.clock import TestingConfig
from qwenbox.console.settings import ConsoleConfig
from qwenbox.db import DatabaseConfig
from qwenbox.engines.diffusion import DiffusionConfig
from qwenbox.engines.faults import FaultsConfig
from qwenbox.engines.memory import MemoryConfig
from qwenbox.engines.registry import EngineConfig, misfit
from qwenbox.files import FilesConfig
from qwenbox.gateway.attempts.breaker import BreakerConfig
from qwenbox.gateway.attempts.policy import RetryConfig
from qwenbox.gateway.cache.config import CacheConfig
from qwenbox.gateway.catalog import ModelEntry
from qwenbox.gateway.conversations import ConversationsConfig
from qwenbox.gateway.counters.base import MoneyConfig
from qwenbox.gateway.counters.members import ValkeyConfig
from qwenbox.gateway.journal.registry import JournalConfig
from qwenbox.gateway.limits import LimitsConfig, Tier
from qwenbox.gateway.prefixes import PrefixesConfig
from qwenbox.gateway.prices import PriceRow, Prices
from qwenbox.gateway.recordings import RecordingConfig
from qwenbox.gateway.redaction.config import Mode, RedactionConfig
from qwenbox.gateway.scheduler import SchedulerConfig
from qwenbox.gateway.statements import RetentionConfig
from qwenbox.jobs.results import ResultsConfig
from qwenbox.jobs.tasks import TasksConfig
from qwenbox.jobs.worker import BatchConfig
from qwenbox.media.config import MediaConfig
from qwenbox.server.admin.guard import AdminConfig
from qwenbox.server.exchange import ServerConfig
from qwenbox.server.metrics import MetricsConfig
from qwenbox.tape import TapeConfig
from qwenbox.telemetry.config import TracesConfig
from qwenbox.telemetry.logs import LogConfig
from qwenbox.terms.caller import Compat
from qwenbox.terms.secret import Secret
from qwenbox.uploads import UploadsConfig
from qwenbox.weights.entry import WeightsConfig, WeightsEntry, from_environment

# TOML values before they are checked against the structs; no code but the merge below reads them.
Raw: TypeAlias = dict[str, object]

DEFAULT_PROFILE = "laptop"

# These lie under every profile, weakest first.
SHIPPED_BELOW = ("weights", "tiers", "prices")

# The user's own files in the data folder, weakest first: `qwenbox models add` writes the first, people write the second.
USER_FILES = ("models.toml", "qwenbox.toml")

_ENVIRONMENT: dict[str, tuple[str, ...]] = {
    "QWENBOX_PROFILE": ("profile",),
    "QWENBOX_COMPAT": ("compat",),
    "QWENBOX_HOST": ("server", "host"),
    "QWENBOX_PORT": ("server", "port"),
    "QWENBOX_WORKERS": ("server", "workers"),
    "QWENBOX_API_KEY": ("api_key",),
    "QWENBOX_DATABASE_URL": ("database", "url"),
    "QWENBOX_VALKEY_URL": ("valkey", "url"),
    "QWENBOX_ADMIN_KEY": ("admin", "key"),
    "QWENBOX_CONSOLE_PORT": ("console", "port"),
    "QWENBOX_TESTING": ("testing", "clock"),
    "QWENBOX_LOG_FORMAT": ("log", "format"),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("traces", "endpoint"),
}


class ConfigError(Exception):
    """The settings make no sense; the message names the file or variable and what to write instead."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a box can be told. Tables are documented at the structs they decode to.

    home: the data folder; deleting it is a full uninstall. api_key: presets the first key.
    engine, model, weights: the catalog (docs/engines.md). redaction: by the engine's name (docs/practices/privacy.md).
    """

    home: Path
    profile: str = DEFAULT_PROFILE
    compat: Compat = Compat.DOCUMENTED
    api_key: Secret | None = None
    server: ServerConfig = ServerConfig()
    admin: AdminConfig = AdminConfig()
    console: ConsoleConfig = ConsoleConfig()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()
    traces: TracesConfig = TracesConfig()
    testing: TestingConfig = TestingConfig()
    faults: FaultsConfig = FaultsConfig()
    tape: TapeConfig = TapeConfig()
    database: DatabaseConfig = DatabaseConfig()
    valkey: ValkeyConfig = ValkeyConfig()
    retention: RetentionConfig = RetentionConfig()
    recording: RecordingConfig = RecordingConfig()
    journal: JournalConfig = JournalConfig()
    cache: CacheConfig = CacheConfig()
    prefixes: PrefixesConfig = PrefixesConfig()
    files: FilesConfig = FilesConfig()
    uploads: UploadsConfig = UploadsConfig()
    media: MediaConfig = MediaConfig()
    batch: BatchConfig = BatchConfig()
    conversations: ConversationsConfig = ConversationsConfig()
    tasks: TasksConfig = TasksConfig()
    results: ResultsConfig = ResultsConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    retries: RetryConfig = RetryConfig()
    breaker: BreakerConfig = BreakerConfig()
    limits: LimitsConfig = LimitsConfig()
    tier: dict[str, Tier] = {}
    money: MoneyConfig = MoneyConfig()
    memory: MemoryConfig = MemoryConfig()
    store: WeightsConfig = WeightsConfig()
    weights: dict[str, WeightsEntry] = {}
    engine: dict[str, EngineConfig] = {}
    redaction: dict[str, RedactionConfig] = {}
    model: tuple[ModelEntry, ...] = ()
    price: tuple[PriceRow, ...] = ()

    @property
    def provokes(self) -> bool:
        """Whether requests may ask for a fault."""
        return self.testing.clock or self.faults.provoke

    @property
    def prices(self) -> Prices:
        """The price book, with the catalog's aliases."""
        return Prices(self.price, {alias: entry.name for entry in self.model for alias in entry.aliases})

    @property
    def database_url(self) -> str:
        return self.database.url or f"sqlite+aiosqlite:///{self.home / 'qwenbox.db'}"


def load(overrides: Mapping[str, object] | None = None, environment: Mapping[str, str] = os.environ) -> Config:
    """Read every source once, later ones win: profile, files in the data folder, environment, `overrides` (flags).

    overrides: dotted names, e.g. {"server.port": 9000}. Raises ConfigError.
    """
    home = Path(environment.get("QWENBOX_HOME") or "~/.qwenbox").expanduser()
    flags = _nested({tuple(name.split(".")): value for name, value in (overrides or {}).items() if value is not None})
    variables = _nested({path: environment[name] for name, path in _ENVIRONMENT.items() if environment.get(name)})
    own = [_read(home / name) for name in USER_FILES if (home / name).is_file()]
    named = [str(layer["profile"]) for layer in (*own, variables, flags) if "profile" in layer]
    profile = named[-1] if named else DEFAULT_PROFILE
    merged: Raw = {}
    shipped = _shipped_below((*own, variables, flags))
    for layer in (*shipped, _shipped(profile), *own, variables, flags):
        merged = _merge(merged, layer)
    config = _decode({**merged, "profile": profile, "home": home})
    config = msgspec.structs.replace(config, store=from_environment(config.store, environment))
    _check(config)
    return config


def encode(config: Config) -> bytes:
    """A configuration for another process of this box, secrets and all: for a private pipe, never for a file."""
    return msgspec.json.encode(config, enc_hook=_plain)


def decode(data: bytes) -> Config:
    """What `encode` wrote. Raises ConfigError."""
    return _decode(msgspec.json.decode(data, type=Raw))


def profiles() -> tuple[str, ...]:
    """Names of the profiles that ship."""
    shipped = (resources.files("qwenbox") / "profiles").iterdir()
    names = (entry.name.removesuffix(".toml") for entry in shipped if entry.name.endswith(".toml"))
    return tuple(sorted(name for name in names if name not in SHIPPED_BELOW))


def _shipped_below(layers: tuple[Raw, ...]) -> list[Raw]:
    merged: Raw = {}
    for layer in layers:
        merged = _merge(merged, layer)
    money = merged.get("money")
    # A price book has one currency, so whoever wants another one must be able to leave ours out.
    has_prices = not isinstance(money, dict) or msgspec.convert(money, Raw).get("shipped_prices", True) is not False
    return [_shipped(name) for name in SHIPPED_BELOW if has_prices or name != "prices"]


def _shipped(name: str) -> Raw:
    resource = resources.files("qwenbox") / "profiles" / f"{name}.toml"
    if not name.isidentifier() or not resource.is_file():
        raise ConfigError(f"There is no profile {name!r}; profiles are {', '.join(profiles())}.")
    return tomllib.loads(resource.read_text("utf-8"))


def _read(path: Path) -> Raw:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _nested(values: Mapping[tuple[str, ...], object]) -> Raw:
    nested: Raw = {}
    for path, value in values.items():
        for name in reversed(path):
            value = {name: value}
        nested = _merge(nested, msgspec.convert(value, Raw))
    return nested


def _merge(base: Raw, top: Raw) -> Raw:
    """Tables merge key by key, `model` by its rows' names, `price` by model and date; an engine of another kind and everything else is
    replaced."""
    merged = dict(base)
    for name, value in top.items():
        old = merged.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[name] = _merge_tables(msgspec.convert(old, Raw), msgspec.convert(value, Raw))
        elif name == "model" and isinstance(old, list) and isinstance(value, list):
            merged[name] = _merge_models(msgspec.convert(old, list[Raw]), msgspec.convert(value, list[Raw]))
        elif name == "price" and isinstance(old, list) and isinstance(value, list):
            merged[name] = _merge_prices(msgspec.convert(old, list[Raw]), msgspec.convert(value, list[Raw]))
        else:
            merged[name] = value
    return merged


def _merge_tables(old: Raw, new: Raw) -> Raw:
    is_same_kind = new.get("kind", old.get("kind")) == old.get("kind")
    return _merge(old, new) if is_same_kind else new


def _merge_models(base: list[Raw], top: list[Raw]) -> list[Raw]:
    rows = {row.get("name"): row for row in base}
    for row in top:
        name = row.get("name")
        rows[name] = _merge(rows[name], row) if name in rows else row
    return list(rows.values())


def _merge_prices(base: list[Raw], top: list[Raw]) -> list[Raw]:
    replaced = {(row.get("model"), str(row.get("from"))) for row in top}
    return [*(row for row in base if (row.get("model"), str(row.get("from"))) not in replaced), *top]


def _decode(merged: Raw) -> Config:
    try:
        # Not strict: the environment has texts where the file has numbers.
        return msgspec.convert(merged, Config, strict=False, dec_hook=_own_types)
    except msgspec.ValidationError as error:
        raise ConfigError(f"The configuration is wrong: {error}") from error


def _own_types(kind: type, value: object) -> object:
    if kind is Secret:
        return Secret(str(value))
    if kind is Path:
        return Path(str(value)).expanduser()
    raise NotImplementedError(kind)  # msgspec's own protocol for "not a type of ours"


def _plain(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))


def _check(config: Config) -> None:
    """What no single struct can see: names that point at each other, a price book in two currencies."""
    try:
        Prices(config.price)
    except ValueError as error:
        raise ConfigError(f"The configuration is wrong: {error}.") from error
    if config.limits.default_tier not in config.tier:
        tiers = ", ".join(sorted(config.tier))
        raise ConfigError(f"limits.default_tier is {config.limits.default_tier!r}, but the tiers are {tiers}.")
    taken: set[str] = set()
    for entry in config.model:
        for name in (entry.name, *entry.aliases):
            if name in taken:
                raise ConfigError(f"Two models have the name {name!r}.")
            taken.add(name)
        for deployment in entry.deployments:
            if deployment not in config.engine:
                raise ConfigError(f"Model {entry.name!r} names the engine {deployment!r}, but there is no table [engine.{deployment}].")
    _check_engines(config)


def _check_engines(config: Config) -> None:
    """Engines beside each other, their redactions and this box's workers."""
    redacted = {name for name, redaction in config.redaction.items() if redaction.mode is not Mode.OFF}
    if wrong := misfit(config.engine, redacted):
        raise ConfigError(f"The configuration is wrong: {wrong}.")
    for name in config.redaction:
        if name not in config.engine:
            raise ConfigError(f"[redaction.{name}] is for an engine that does not exist; engines are {', '.join(sorted(config.engine))}.")
    drawing = [name for name, engine in config.engine.items() if isinstance(engine, DiffusionConfig)]
    if drawing and config.server.workers > 1:
        text = f"[engine.{drawing[0]}] draws for one process: give it a box of its own, and name that here as an openai_server"
        raise ConfigError(f"{text}; or set [server] workers = 1.")
