"""This is where the user's own models are kept: QWENBOX_HOME/models.toml, read by `config` like any other layer."""

import json
import os
import tomllib
from pathlib import Path
from typing import TypeAlias

import msgspec

from qwenbox.gateway.catalog import ModelEntry
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.weights.entry import WeightsEntry

Toml: TypeAlias = str | int | float | bool | list["Toml"] | dict[str, "Toml"]

FILE = "models.toml"
USUAL_KV_TOKENS = 32_768
_HEADER = "# Written by `qwenbox models add` and `remove`. Settings of your own belong in qwenbox.toml beside it.\n"


class _Engine(msgspec.Struct, frozen=True, kw_only=True):
    """The embedded engine for one set of weights."""

    kind: str
    weights: str
    context_tokens: int
    kv_tokens: int


class OwnModels:
    """The file's tables as they are; `add` and `remove` rewrite it whole, so that a reader never sees half of it."""

    def __init__(self, home: Path) -> None:
        """Raises ApiError(INVALID_REQUEST) if somebody left it unreadable."""
        self._path = home / FILE
        try:
            text = self._path.read_text("utf-8") if self._path.exists() else ""
            self._tables = msgspec.convert(tomllib.loads(text), dict[str, Toml])
        except (OSError, ValueError, msgspec.ValidationError) as error:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"{self._path} can't be read: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """Public names, in the file's order."""
        return tuple(str(row["name"]) for row in self._models())

    def add(self, model: ModelEntry, entry: WeightsEntry) -> None:
        """A model, its engine and its weights, all by the model's name."""
        name = model.name
        self._table("weights")[name] = _plain(entry)
        context = model.card.context_tokens
        # Four full conversations of a short context, one of a long one.
        kv_tokens = max(context, min(4 * context, USUAL_KV_TOKENS))
        self._table("engine")[name] = _plain(_Engine(kind="llamacpp", weights=name, context_tokens=context, kv_tokens=kv_tokens))
        self._tables["model"] = [*self._models(), _plain(model)]
        self._write()

    def remove(self, name: str) -> None:
        for table in ("weights", "engine"):
            self._table(table).pop(name, None)
        self._tables["model"] = [row for row in self._models() if row["name"] != name]
        self._write()

    def _table(self, name: str) -> dict[str, Toml]:
        table = self._tables.setdefault(name, {})
        if not isinstance(table, dict):
            raise ApiError(ErrorKind.INVALID_REQUEST, f"{self._path}: [{name}] must be a table.")
        return table

    def _models(self) -> list[dict[str, Toml]]:
        return msgspec.convert(self._tables.get("model", []), list[dict[str, Toml]])

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(_HEADER + "".join(_lines(self._tables, ())))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def _plain(value: msgspec.Struct) -> dict[str, Toml]:
    """The struct as TOML values, without what is empty or unset: TOML has no null, and defaults speak for themselves."""
    return msgspec.convert(_filled(msgspec.to_builtins(value)), dict[str, Toml])


def _filled(value: object) -> object:
    if isinstance(value, dict):
        pairs = ((name, _filled(inner)) for name, inner in msgspec.convert(value, dict[str, object]).items())
        return {name: inner for name, inner in pairs if inner not in (None, "", [], {})}
    return value


def _lines(table: dict[str, Toml], path: tuple[str, ...]) -> list[str]:
    """A table's own values first, then the tables inside it: after a [header] TOML knows no way back."""
    lines = [f"{_key(name)} = {_value(value)}\n" for name, value in table.items() if not _is_table(value)]
    for name, value in table.items():
        inner = (*path, _key(name))
        if isinstance(value, dict):
            body = _lines(value, inner)
            lines += [f"\n[{'.'.join(inner)}]\n", *body] if body and not body[0].startswith("\n") else body
        elif _is_table(value) and isinstance(value, list):
            for row in value:
                lines += [f"\n[[{'.'.join(inner)}]]\n", *_lines(msgspec.convert(row, dict[str, Toml]), inner)]
    return lines


def _is_table(value: Toml) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value))


def _value(value: Toml) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # JSON's escapes are TOML's, but for DEL, which TOML wants escaped and JSON leaves alone.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return "[" + ", ".join(_value(item) for item in value) + "]"
        case dict():
            return "{ " + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items()) + " }"
        case _:
            return repr(value)


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() and name.isascii() else _value(name)
