"""This is where short-lived keys are made and verified: for browsers and other clients that nobody should trust with a real key.

A key is "st-" and base64url of: expiry (8 bytes, seconds since the epoch), nonce (8), id of the key that asked, HMAC-SHA256 (32) over
all of that under a secret of the box. So every process that knows the secret knows the key at once, without a look into the database.
"""

import base64
import binascii
import hashlib
import hmac
import math
import secrets
from typing import Protocol

import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway.settings import Settings
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

PREFIX = "st-"

_SETTING = "short_lived_secret"
_SECRET_BYTES = 32
_NONCE_BYTES = 8
_EXPIRY_BYTES = 8
_SIGNATURE_BYTES = 32
_FIXED_BYTES = _EXPIRY_BYTES + _NONCE_BYTES

# A key of ours is about 110 characters; nobody's megabyte is decoded.
_MOST_CHARACTERS = 512


class Parents(Protocol):
    def caller(self, key_id: str) -> Caller:
        """Who calls with the key of this id, as it is now. Raises ApiError(UNAUTHENTICATED) once it is revoked or expired."""
        ...


class ShortLivedKey(msgspec.Struct, frozen=True, kw_only=True):
    """expires_at: whole seconds since the epoch; from then on the key is refused."""

    secret: Secret
    expires_at: int


async def shared_secret(settings: Settings) -> Secret:
    """The secret all processes of the box sign with; drawn by whoever is first."""
    return Secret(await settings.once(_SETTING, secrets.token_hex(_SECRET_BYTES)))


class ShortLivedKeys:
    def __init__(self, secret: Secret, parents: Parents, clock: Clock) -> None:
        self._secret = secret.reveal().encode()
        self._parents = parents
        self._clock = clock

    def issue(self, caller: Caller, seconds_s: int) -> ShortLivedKey:
        """A key with the rights, limits and bill of the key that asks, good for `seconds_s`, > 0, if that key is.

        Raises ApiError(FORBIDDEN) for a caller that came with a short-lived key itself.
        """
        if caller.is_short_lived:
            raise ApiError(ErrorKind.FORBIDDEN, "A short-lived key cannot make further keys. Ask with the API key it came from.")
        over_at = self._clock.now() + seconds_s
        expires_at = math.ceil(over_at if caller.expires_at is None else min(over_at, caller.expires_at))
        signed = expires_at.to_bytes(_EXPIRY_BYTES, "big") + secrets.token_bytes(_NONCE_BYTES) + caller.key_id.encode()
        text = base64.urlsafe_b64encode(signed + self._signature(signed)).rstrip(b"=").decode()
        return ShortLivedKey(secret=Secret(PREFIX + text), expires_at=expires_at)

    def verify(self, secret: str) -> Caller:
        """Who calls with this short-lived key. Raises ApiError(UNAUTHENTICATED): not ours, over, or its parent is no longer valid."""
        signed = self._signed(secret)
        expires_at = int.from_bytes(signed[:_EXPIRY_BYTES], "big")
        if self._clock.now() >= expires_at:
            raise ApiError(ErrorKind.UNAUTHENTICATED)
        parent = self._parents.caller(signed[_FIXED_BYTES:].decode())
        over_at = expires_at if parent.expires_at is None else min(expires_at, parent.expires_at)
        return msgspec.structs.replace(parent, expires_at=over_at, is_short_lived=True)

    def _signed(self, secret: str) -> bytes:
        if not secret.startswith(PREFIX) or not secret.isascii() or len(secret) > _MOST_CHARACTERS:
            raise ApiError(ErrorKind.UNAUTHENTICATED)
        text = secret.removeprefix(PREFIX)
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except binascii.Error as error:
            raise ApiError(ErrorKind.UNAUTHENTICATED) from error
        signed, signature = data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]
        if len(signed) <= _FIXED_BYTES or not hmac.compare_digest(signature, self._signature(signed)):
            raise ApiError(ErrorKind.UNAUTHENTICATED)
        return signed

    def _signature(self, signed: bytes) -> bytes:
        return hmac.digest(self._secret, signed, hashlib.sha256)
