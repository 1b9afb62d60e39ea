"""This is where passwords of people who log in are hashed and compared, with argon2id; API keys are not passwords (keys.py)."""

import anyio
import anyio.to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

LEAST_CHARACTERS = 8
# Longer ones are refused, so that nobody has the box hash megabytes.
MOST_CHARACTERS = 1_024

# RFC 9106's second choice: 64 MiB and about 0.1 s of a core for each password.
_HASHER = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4)

# So many at once: a flood of logins must not take the box's memory.
_AT_ONCE = 2

# Compared with when there is no such user, so that the answer takes as long as for a wrong password. Of 32 random bytes, forgotten.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$GvXhe6h730EhHpgxQ4Nc6A$f/2CUNlyflafcunxrLTP6IqZ5+VWOIyAniGO62CzzRw"


class Passwords:
    """Hashing off the event loop, bounded."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def hashed(self, password: Secret) -> str:
        """What may be stored of a password. Raises ApiError(INVALID_REQUEST) for one too short or too long."""
        if not LEAST_CHARACTERS <= len(password.reveal()) <= MOST_CHARACTERS:
            text = f"A password has {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters."
            raise ApiError(ErrorKind.INVALID_REQUEST, text, param="password")
        return await anyio.to_thread.run_sync(_HASHER.hash, _bytes(password), limiter=self._limiter)

    async def is_right(self, stored: str | None, password: Secret) -> bool:
        """Whether this is the password of which `stored` is left; None (nobody, or nobody with a password) takes as long and is False."""
        if len(password.reveal()) > MOST_CHARACTERS:
            return False
        is_same = await anyio.to_thread.run_sync(_is_same, stored or _NOBODY, _bytes(password), limiter=self._limiter)
        return is_same and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether it was hashed with other costs than today's, and should be hashed again at the next right password."""
        return _HASHER.check_needs_rehash(stored)


def _is_same(stored: str, password: bytes) -> bool:
    try:
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


def _bytes(password: Secret) -> bytes:
    return password.reveal().encode("utf-8", "surrogatepass")
