"""This is where the settings in force are told to people: each with its name, and nothing that must not be seen."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from qwenbox.client.system import Setting
from qwenbox.config import Config, load
from qwenbox.terms.secret import Secret

HIDDEN: Final = "…"
# Where engines are, nobody who looks needs to know; an address of a database or store may hold its password.
_BLIND: Final = re.compile(r"engine\..*\b(address|base_url|endpoint|url|host|workspace)|database\.url|valkey\.url|.*\bkey|api_key")
_LOGIN: Final = re.compile(r"(?<=://)[^/@\s]*@")
# Long tables that ship: only what is not as it ships.
_CATALOG: Final = ("model", "price", "weights")


def effective(config: Config) -> tuple[Setting, ...]:
    """By name, as qwenbox.toml would have them."""
    shipped = dict(_flat(load({}, {"QWENBOX_HOME": str(config.home / "none"), "QWENBOX_PROFILE": config.profile})))
    found: list[Setting] = []
    for name, value in sorted(_flat(config)):
        is_default = name in shipped and shipped[name] == value
        if is_default and name.startswith(tuple(f"{table}." for table in _CATALOG)):
            continue
        is_set = value not in ("", None)
        is_hidden = is_set and (value == HIDDEN or _BLIND.fullmatch(name) is not None)
        text = HIDDEN if is_hidden else _LOGIN.sub(f"{HIDDEN}@", json.dumps(value, ensure_ascii=False))
        found.append(Setting(name=name, value=text, is_default=is_default or name == "home", is_hidden=is_hidden))
    return tuple(found)


def _flat(config: Config) -> Iterator[tuple[str, object]]:
    return _leaves("", msgspec.to_builtins(config, enc_hook=_plain))


def _leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    """Tables are gone into, also those of a list, by their names."""
    rows = _rows(value)
    if rows:
        value = {str(row.get("name") or f"{row.get('model', '')}@{row.get('from', index)}"): row for index, row in enumerate(rows)}
    if isinstance(value, Mapping) and value:
        for key, inner in msgspec.convert(value, dict[str, object]).items():
            yield from _leaves(f"{name}.{key}" if name else key, inner)
    else:
        yield name, value


def _rows(value: object) -> list[dict[str, object]]:
    try:
        return msgspec.convert(value, list[dict[str, object]])
    except msgspec.ValidationError:
        return []


def _plain(value: object) -> object:
    if isinstance(value, Secret):
        return HIDDEN if value.reveal() else ""
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))  # msgspec's own protocol
