"""This is where the user's own models are kept: QWENBOX_HOME/models.toml, read by `config` like any other layer."""

import json
import os
import time
import tomllib
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec

from qwenbox.gateway.catalog import ModelEntry
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.weights.entry import WeightsEntry

# Tables as TOML has them; a person may have added keys that are none of our business, so they are kept as they are.
Raw: TypeAlias = dict[str, object]

T = TypeVar("T")

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
            self._tables: Raw = tomllib.loads(text)
        except (OSError, ValueError) as error:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"{self._path} can't be read: {error}") from error

    @property
    def names(self) -> tuple[str, ...]:
        """Public names, in the file's order."""
        return tuple(str(row.get("name", "")) for row in self._models())

    def add(self, model: ModelEntry, entry: WeightsEntry) -> None:
        """A model, its engine and its weights, all by the model's name."""
        name, context = model.name, model.card.context_tokens
        # Four full conversations of a short context, one of a long one.
        kv_tokens = max(context, min(4 * context, USUAL_KV_TOKENS))
        engine = _Engine(kind="llamacpp", weights=name, context_tokens=context, kv_tokens=kv_tokens)
        dated = msgspec.structs.replace(model, created_at=int(time.time()))
        self._tables["weights"] = {**self._table("weights"), name: _filled(entry)}
        self._tables["engine"] = {**self._table("engine"), name: _filled(engine)}
        self._tables["model"] = [*self._models(), _filled(dated)]
        self._write()

    def remove(self, name: str) -> None:
        for table in ("weights", "engine"):
            self._tables[table] = {other: value for other, value in self._table(table).items() if other != name}
        self._tables["model"] = [row for row in self._models() if row.get("name") != name]
        self._write()

    def _table(self, name: str) -> Raw:
        return self._convert(name, Raw, {})

    def _models(self) -> list[Raw]:
        return self._convert("model", list[Raw], [])

    def _convert(self, name: str, kind: type[T], empty: T) -> T:
        try:
            return msgspec.convert(self._tables.get(name, empty), kind)
        except msgspec.ValidationError as error:
            raise ApiError(ErrorKind.INVALID_REQUEST, f"{self._path}: `{name}` is wrong: {error}") from error

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self._path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(_HEADER + "".join(_lines({name: value for name, value in self._tables.items() if value}, ())))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def _filled(value: msgspec.Struct) -> Raw:
    """The struct as TOML values without what is its default: TOML has no null, and defaults speak for themselves."""
    filled: Raw = {}
    for field in msgspec.structs.fields(value):
        inner: object = getattr(value, field.name)
        if inner == field.default or inner is None:
            continue
        if isinstance(inner, msgspec.Struct):
            filled[field.name] = _filled(inner)
        elif isinstance(inner, frozenset):
            filled[field.name] = sorted(msgspec.convert(inner, list[str]))
        else:
            filled[field.name] = msgspec.json.decode(msgspec.json.encode(inner))
    return filled


def _is_only_tables(table: Raw) -> bool:
    return bool(table) and all(_is_table(value) for value in table.values())


def _lines(table: Raw, path: tuple[str, ...]) -> list[str]:
    """A table's own values first, then the tables inside it: after a [header] TOML knows no way back."""
    lines = [f"{_key(name)} = {_value(value)}\n" for name, value in table.items() if not _is_table(value)]
    for name, value in table.items():
        inner = (*path, _key(name))
        if isinstance(value, dict):
            content = msgspec.convert(value, Raw)
            header = [] if _is_only_tables(content) else [f"\n[{'.'.join(inner)}]\n"]
            lines += [*header, *_lines(content, inner)]
        elif _is_table(value):
            for row in msgspec.convert(value, list[Raw]):
                lines += [f"\n[[{'.'.join(inner)}]]\n", *_lines(row, inner)]
    return lines


def _is_table(value: object) -> bool:
    if isinstance(value, list):
        items = msgspec.convert(value, list[object])
        return bool(items) and all(isinstance(item, dict) for item in items)
    return isinstance(value, dict)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # JSON's escapes are TOML's, but for DEL, which TOML wants escaped and JSON leaves alone.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return "[" + ", ".join(_value(item) for item in msgspec.convert(value, list[object])) + "]"
        case dict():
            pairs = msgspec.convert(value, Raw).items()
            return "{ " + ", ".join(f"{_key(name)} = {_value(item)}" for name, item in pairs) + " }"
        case _:
            # Numbers; and dates and times, whose text is TOML's.
            return str(value)


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("-", "").replace("_", "").isalnum() else _value(name)
