"""This is where `qwenbox batch` finds out whom it talks to, and with which key."""

import os
from collections.abc import Mapping

import msgspec

from qwenbox.cli.box import configured_address
from qwenbox.config import Config
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

# Where an address may be named, and a key that belongs to it; in this order.
_FAMILIES = (
    ("QWENBOX_BASE_URL", "QWENBOX_API_KEY"),
    ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ("DASHSCOPE_HTTP_BASE_URL", "DASHSCOPE_API_KEY"),
)
_NATIVE, _COMPATIBLE = "/api/v1", "/compatible-mode/v1"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """address: the compatible base URL. is_own: the box of this machine's settings."""

    address: str
    key: Secret
    is_own: bool


def found(config: Config, base_url: str, key: str, environment: Mapping[str, str] = os.environ) -> Place:
    """base_url, key: as the command line has them. Raises ApiError(UNAUTHENTICATED) without any key.

    The key named beside an address comes first; the settings' own never leaves this machine's box.
    """
    families = [(environment.get(url, ""), environment.get(name, "")) for url, name in _FAMILIES]
    address, beside = next(((url, own) for url, own in families if url), ("", "")) if not base_url else (base_url, "")
    own, openai, dashscope = (each for _, each in families)
    preset = config.api_key.reveal() if config.api_key else ""
    rest = (dashscope, openai, own) if address else (own, dashscope, preset)
    chosen = key or beside or next(filter(None, rest), "")
    if not chosen:
        text = "No API key. Export DASHSCOPE_API_KEY as the box's banner shows it, or make one: qwenbox keys create"
        raise ApiError(ErrorKind.UNAUTHENTICATED, text)
    return Place(address=_compatible(address or configured_address(config)), key=Secret(chosen), is_own=not address)


def _compatible(address: str) -> str:
    """The base URL that speaks OpenAI's dialect: a bare address and the native base URL lead there, too."""
    address = address.rstrip("/")
    if address.endswith(_NATIVE):
        return address.removesuffix(_NATIVE) + _COMPATIBLE
    return address + _COMPATIBLE if address.count("/") == 2 else address
