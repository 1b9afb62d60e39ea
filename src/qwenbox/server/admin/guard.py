"""This is where the admin API decides who may use it: a credential of its own, or an admin account's password. Never an API key."""

import base64
import binascii
import hmac
import ipaddress
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway.accounts import Account, Role
from qwenbox.gateway.tries import Tries
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

KEY_FILE = "admin.key"

_OFF = (
    "The admin API is off: the box listens on an address that others can reach, and no admin key was chosen for it. "
    "Set QWENBOX_ADMIN_KEY, or key in the [admin] table of qwenbox.toml, and start the box again."
)
_WRONG = (
    "This needs the admin key (QWENBOX_ADMIN_KEY, or the file admin.key in the box's data folder) as `Authorization: Bearer`, "
    "or name and password of an account with the role admin. API keys are not accepted here."
)

# Whose password this is. Raises ApiError(UNAUTHENTICATED), as slowly for a name that nobody has.
LogIn: TypeAlias = Callable[[str, Secret], Awaitable[Account]]


class AdminConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[admin]`. key: the credential of the admin API; without one the first start draws one into the data folder.

    Without one, the API is off on addresses other than loopback. body_limit_bytes: the largest request.
    """

    key: Secret | None = None
    body_limit_bytes: int = 1024 * 1024


class AdminKey(msgspec.Struct, frozen=True, kw_only=True):
    """is_chosen: by the owner, in a setting."""

    secret: Secret
    is_chosen: bool


def admin_key(config: AdminConfig, home: Path) -> AdminKey:
    """The setting's, else that of the data folder's file, which is drawn once, also when several processes start together."""
    if config.key is not None:
        return AdminKey(secret=config.key, is_chosen=True)
    path = home / KEY_FILE
    if not path.exists():
        draft = home / f"{KEY_FILE}.{secrets.token_hex(8)}"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"ak-{secrets.token_hex(24)}\n")
        try:
            # A link appears whole or not at all, and only one can be first.
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return AdminKey(secret=Secret(path.read_text("ascii").strip()), is_chosen=False)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a box that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """key: of the box. host: where it listens."""

    def __init__(self, key: AdminKey, host: str, log_in: LogIn, clock: Clock) -> None:
        self._key = key.secret.reveal().encode()
        self._is_on = key.is_chosen or is_loopback(host)
        self._log_in = log_in
        self._tries = Tries(clock)

    async def admit(self, authorization: str, address: str) -> None:
        """Returns for who may use the API. address: where the request comes from.

        Raises ApiError: FORBIDDEN when the API is off, UNAUTHENTICATED, RATE_LIMITED after too many wrong passwords.
        """
        if not self._is_on or not self._key:
            raise ApiError(ErrorKind.FORBIDDEN, _OFF)
        scheme, _, given = authorization.strip().partition(" ")
        match scheme.lower():
            case "bearer" if hmac.compare_digest(given.strip().encode("utf-8", "surrogatepass"), self._key):
                return
            case "basic":
                await self._admit_admin(given.strip(), address)
            case _:
                raise ApiError(ErrorKind.UNAUTHENTICATED, _WRONG)

    async def _admit_admin(self, given: str, address: str) -> None:
        try:
            name, _, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, ValueError) as error:
            raise ApiError(ErrorKind.UNAUTHENTICATED, _WRONG) from error
        if not name.isprintable():
            raise ApiError(ErrorKind.UNAUTHENTICATED, _WRONG)
        who = (name, address)
        self._tries.enter(who)
        try:
            account = await self._log_in(name, Secret(password))
        except ApiError as error:
            raise (ApiError(ErrorKind.UNAUTHENTICATED, _WRONG) if error.kind is ErrorKind.UNAUTHENTICATED else error) from error
        self._tries.clear(who)
        if account.role is not Role.ADMIN:
            raise ApiError(ErrorKind.FORBIDDEN, "This account may not administer the box; an account with the role admin may.")
