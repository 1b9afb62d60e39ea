"""This is where the console has API keys of its own, one per account, for what it calls in a visitor's name: Playground and Batches.

A key is made when it is first needed, used until shortly before it expires, and revoked when the console ends. What a console that died
left behind is revoked at the next one's start. No browser ever sees one.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

import anyio

from qwenbox.client.admin import AdminClient
from qwenbox.client.shapes import Key, NewAccount, NewKey
from qwenbox.terms.errors import ApiError
from qwenbox.terms.secret import Secret

NAME = "console"
LASTS_S = 12 * 3600.0

# A key is replaced while a long answer can still end with it.
_SPARE_S = 3600.0
_END_WITHIN_S = 5.0
_DEFAULT_ACCOUNT = "default"


class _Own(NamedTuple):
    id: str
    secret: Secret
    expires_at: float


class OwnKeys:
    """admin: makes and revokes them. now: seconds since 1970. Open it once, where the console starts."""

    def __init__(self, admin: AdminClient, now: Callable[[], float] = time.time) -> None:
        self._admin = admin
        self._now = now
        self._keys: dict[str, _Own] = {}
        self._lock = anyio.Lock()

    async def __aenter__(self) -> Self:
        """Revokes what a console that died left behind; whoever cannot reach the box now is told so by the pages."""
        with suppress(ApiError):
            for key in await self._admin.keys():
                if key.revoked_at is None and is_ours(key):
                    await self._admin.revoke_key(key.id)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Revokes them all. A box that is gone already is no failure: they expire, and the next console revokes them."""
        with anyio.move_on_after(_END_WITHIN_S, shield=True):
            for own in self._keys.values():
                with suppress(ApiError):
                    await self._admin.revoke_key(own.id)
        self._keys.clear()

    async def key(self, account: str = "") -> Secret:
        """A key of that account, by its name; "" is who came in by a link: the account `default`, else the oldest one.

        Raises ApiError, as when there is no such account.
        """
        async with self._lock:
            own = self._keys.get(account)
            if own is None or own.expires_at - self._now() < _SPARE_S:
                own = self._keys[account] = await self._make(account)
            return own.secret

    def forget(self, key: Secret) -> None:
        """It was refused: somebody revoked it. The next one asked for is new."""
        self._keys = {account: own for account, own in self._keys.items() if own.secret != key}

    async def account(self, account: str = "") -> str:
        """Who pays for that visitor: the account's name. Made if the box has none."""
        if account:
            return account
        known = [one.name for one in await self._admin.accounts()]
        if not known:
            return (await self._admin.create_account(NewAccount(name=_DEFAULT_ACCOUNT))).name
        return _DEFAULT_ACCOUNT if _DEFAULT_ACCOUNT in known else known[0]

    async def _make(self, account: str) -> _Own:
        wanted = NewKey(account=await self.account(account), name=NAME, expires_at=self._now() + LASTS_S)
        issued = await self._admin.create_key(wanted)
        return _Own(issued.id, Secret(issued.secret), issued.expires_at or 0.0)


def is_ours(key: Key) -> bool:
    """By name and length of life: a person's key of that name lives longer, or for ever. The box's clock may be some seconds off."""
    return key.name == NAME and key.expires_at is not None and key.expires_at - key.created_at <= LASTS_S + 60.0
