"""This is where the first qwenbox.toml gets its text: what was chosen, written out and explained; the rest commented, with its defaults."""

from enum import StrEnum

import msgspec

from qwenbox.config import Config
from qwenbox.terms.secret import Secret


class Purpose(StrEnum):
    """What a box is for. LAPTOP: one person's programs. TEAM: several people's, on weights of this machine. CLOUD: before the service."""

    LAPTOP = "laptop"
    TEAM = "team"
    CLOUD = "cloud"


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What `qwenbox init` was told. database: a URL; "" keeps a file in the data folder."""

    purpose: Purpose
    database: str
    host: str
    port: int


class _Option(msgspec.Struct, frozen=True):
    """path: dotted. value: None leaves it commented, with the default the struct has."""

    path: str
    says: str
    value: str | int | float | bool | None = None


_HEAD = """\
# Settings of this box, written by `qwenbox init`. A line that begins with # says what holds without it; take the # away to change it.
# Stronger than this file: QWENBOX_* variables, then flags of `qwenbox serve`. All settings there are: docs/configuration.md
"""

_PROFILES = {Purpose.LAPTOP: "laptop", Purpose.TEAM: "laptop", Purpose.CLOUD: "cloud"}
_WHO_ANSWERS = {
    Purpose.LAPTOP: "Which models there are and who answers: `laptop`, small Qwen weights on this machine.\n"
    "Others: `echo` (no weights, for tests), `hybrid` (this machine, and the real service when it is busy), `cloud`.",
    Purpose.TEAM: "Which models there are and who answers: `laptop`, small Qwen weights on this machine. Larger ones, or a vLLM that\n"
    "runs already: docs/engines.md. Others: `echo`, `hybrid` (this machine, and the real service when it is busy), `cloud`.",
    Purpose.CLOUD: "Which models there are and who answers: `cloud`, the real service (Model Studio), behind this box's own keys.\n"
    "Others: `hybrid` (this machine first, the service when it is busy), `laptop`, `echo`.",
}
_TIER = "The tier of accounts that have none of their own: free, standard, premium, unlimited, or a [tier.NAME] of yours (docs/limits.md)."


def text(answers: Answers) -> str:
    """The whole file."""
    written = [_HEAD]
    table = ""
    for option in (*_chosen(answers), *_left(answers)):
        head, _, name = option.path.rpartition(".")
        if head != table:
            written.append(f"\n[{head}]")
            table = head
        elif not head:
            written.append("")
        written += [f"# {line}" for line in option.says.splitlines()]
        value = _default(option.path) if option.value is None else option.value
        written.append(f"{'# ' if option.value is None else ''}{name} = {_literal(value)}")
    tail = _cloud() if answers.purpose is Purpose.CLOUD else ""
    return "\n".join(written) + "\n" + tail


def _chosen(answers: Answers) -> list[_Option]:
    is_team = answers.purpose is Purpose.TEAM
    return [
        _Option("profile", _WHO_ANSWERS[answers.purpose], _PROFILES[answers.purpose]),
        _Option("compat", "`documented` answers as the published document says, `strict` as the live service does."),
        _Option("server.host", "Where the box listens. 127.0.0.1: this machine only; 0.0.0.0: every network it is in.", answers.host),
        _Option("server.port", "0 picks a free one, and the banner tells it.", answers.port),
        _Option("server.workers", "Processes that answer. More than one count limits together in Valkey: see url in [valkey]."),
        _Option("server.public_url", "Where clients find the box if a proxy stands in front, such as https://qwen.example.com"),
        _Option(
            "database.url",
            "Accounts, keys, usage and money: postgresql://user:password@host:port/name, or nothing for a SQLite file in this folder.",
            answers.database or None,
        ),
        _Option("limits.default_tier", _TIER, "standard" if is_team else None),
    ]


def _left(answers: Answers) -> list[_Option]:
    return [
        _Option("console.port", "The console in the browser listens here, and /console leads to it (docs/console.md). 0 picks a port."),
        _Option("valkey.url", "Where several workers or nodes count together, such as valkey://127.0.0.1:6379/0"),
        _Option("cache.enabled", "The same question again is answered from the cache, free of charge (docs/practices/cache.md)."),
        _Option("cache.ttl_s", "Seconds an answer may be kept."),
        _Option("batch.concurrency", "Lines of batches that run at the same time."),
        _Option("media.fetches_public", "Whether pictures may be fetched from the internet, where a request names an address there."),
        _Option("faults.provoke", "Requests may ask for a fault by header: for tests of your own program (docs/practices/testing.md)."),
    ]


def _cloud() -> str:
    return """
[engine.cloud]
# The key of the real service is read from the variable DASHSCOPE_API_KEY, or from a file, which counts if both are there.
# key_file = "/run/secrets/dashscope"
# A key is good in its own region only: cn-beijing, ap-southeast-1, us-east-1, cn-hongkong.
# region = "cn-beijing"

[redaction.cloud]
# Personal data leaves as placeholders and comes back in the answer (docs/practices/privacy.md). `off` sends prompts as they are.
# mode = "replace"
"""


def _default(path: str) -> object:
    """What the struct has, at a dotted path."""
    kind: type[msgspec.Struct] = Config
    value: object = None
    for name in path.split("."):
        value = next(field.default for field in msgspec.structs.fields(kind) if field.name == name)
        if isinstance(value, msgspec.Struct):
            kind = type(value)
    return value


def _literal(value: object) -> str:
    """A TOML value: JSON writes texts, numbers and truths as TOML does."""
    return msgspec.json.encode(value.reveal() if isinstance(value, Secret) else value).decode()
