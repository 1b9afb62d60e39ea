"""This is where log lines get their form: text or JSON, with the request they belong to. Never a prompt, an answer or a key."""

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

# The request id of the call that this task works for; "" for none.
REQUEST_ID: ContextVar[str] = ContextVar("qwenbox_request_id", default="")

ACCESS = "qwenbox.access"

# What a record has of its own; whatever else it carries came with `extra`.
_FIELDS = "qwenbox_fields"


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


class Level(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[log]`. format: of a line on stderr, "text" or "json". level: the least that is told of our own; libraries tell warnings.

    access: one line for every answered request, at level info.
    """

    format: Format = Format.TEXT
    level: Level = Level.INFO
    access: bool = False


def set_up(config: LogConfig, worker: int = 0) -> None:
    """Send all log lines of this process to stderr in the configured form. worker: its number among several, told in each line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(worker) if config.format is Format.JSON else TextLines(worker))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("qwenbox").setLevel(config.level.value.upper())


def fields(**values: object) -> dict[str, object]:
    """For `extra` of a log call: values that JSON lines have as fields of their own."""
    return {_FIELDS: values}


class TextLines(logging.Formatter):
    def __init__(self, worker: int = 0) -> None:
        who = f" [worker {worker}]" if worker else ""
        super().__init__(f"%(asctime)s %(levelname)s{who} %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = super().formatMessage(record)
        request_id = REQUEST_ID.get()
        return f"{line} [{request_id}]" if request_id and request_id not in line else line


class JsonLines(logging.Formatter):
    """One JSON object a line: at (UTC), level, logger, message; worker, request_id and exception where there are any; fields of `extra`."""

    def __init__(self, worker: int = 0) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._worker:
            line["worker"] = self._worker
        if request_id := REQUEST_ID.get():
            line["request_id"] = request_id
        line.update(getattr(record, _FIELDS, {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()
