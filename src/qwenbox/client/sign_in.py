"""This is where the bodies of the console's sign-in have their shapes. Tokens and passwords stay out of reprs."""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from qwenbox.client.shapes import Sent, Told

# Whatever else it may be is refused like a wrong one.
Token: TypeAlias = Annotated[str, Meta(max_length=200)]

_HIDDEN = frozenset({"token", "link", "password"})


class _BlindSent(Sent, frozen=True, kw_only=True):
    def __repr__(self) -> str:
        return _blind(self)


class _BlindTold(Told, frozen=True, kw_only=True):
    def __repr__(self) -> str:
        return _blind(self)


class ConsoleState(Told, frozen=True, kw_only=True):
    """has_password: somebody with the role admin has one, so that people can get in without a link."""

    has_password: bool


class LoginLink(_BlindTold, frozen=True, kw_only=True):
    """token: lets one browser in, once; it goes into `/console?token=…`."""

    token: str
    expires_at: float


class NewSession(_BlindSent, frozen=True, kw_only=True):
    """Either the token of a link, or an account and its password. address: where the browser is, for throttling."""

    address: Annotated[str, Meta(max_length=100)]
    link: Token = ""
    account: Annotated[str, Meta(max_length=200)] = ""
    password: Annotated[str, Meta(max_length=1_024)] = ""


class Session(_BlindTold, frozen=True, kw_only=True):
    """token: for the browser's cookie, told when the session begins and by whoever has it. account: a name; "" after a link."""

    token: str
    account: str
    expires_at: float


class SessionToken(_BlindSent, frozen=True, kw_only=True):
    token: Token


def _blind(value: msgspec.Struct) -> str:
    shown = (f"{name}={'…' if name in _HIDDEN else repr(getattr(value, name))}" for name in value.__struct_fields__)
    return f"{type(value).__name__}({', '.join(shown)})"
