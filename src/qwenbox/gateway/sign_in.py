"""This is where people get into the console: one-time links and passwords become sessions, which hold across workers and restarts.

Of tokens only hashes are kept. A session is bound to the credential it came from: it ends when that is changed, the account's
password or, for one that began with a link, the admin key.
"""

import hashlib
import hmac
import secrets

import msgspec
from sqlalchemy import Column, Connection, Float, Index, Insert, Table, Text, Update, delete, insert, select, update

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database
from qwenbox.gateway.accounts import Account, Accounts, Proven, Role
from qwenbox.gateway.tries import Tries
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

LINKS = Table(
    "console_links",
    METADATA,
    Column("token_hash", Text, primary_key=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
)

# account_id: NULL for a session that began with a link. credential_mark: see _mark.
SESSIONS = Table(
    "console_sessions",
    METADATA,
    Column("token_hash", Text, primary_key=True),
    Column("account_id", Text),
    Column("credential_mark", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("console_sessions_by_end", "expires_at"),
)

LINK_S = 24 * 3_600.0
MOST_SESSION_S = 7 * 24 * 3_600.0

_TOKEN_BYTES = 32

# A session's end is moved in the database only by this part of its length or more: a page that looks often does not write often.
_SLIDE_SHARE = 0.01

_ANY_NAME = ""


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """token: lets one browser in, once."""

    token: Secret
    expires_at: float


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """account: name of whose password it was; "" for one that began with a link."""

    token: Secret
    account: str
    expires_at: float


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    account_id: str | None
    credential_mark: str
    created_at: float
    expires_at: float


class SignIn:
    """admin_key: of the box. session_s: how long a session lasts after its last use; MOST_SESSION_S in all."""

    def __init__(self, database: Database, accounts: Accounts, clock: Clock, admin_key: Secret, session_s: float) -> None:
        self._database = database
        self._accounts = accounts
        self._clock = clock
        self._admin_key = admin_key
        self._session_s = session_s
        self._tries = Tries(clock)

    async def link(self) -> Link:
        """A link for whoever administers the box."""
        made = self._drawn()
        await self._database.write(delete(LINKS).where(LINKS.c.expires_at <= self._clock.now()), self._adding(made))
        return made

    async def first_link(self) -> Link:
        """The one that a start shows; those of earlier starts are over."""
        made = self._drawn()
        await self._database.write(delete(LINKS), self._adding(made))
        return made

    async def redeem(self, token: Secret, address: str) -> Session:
        """A session for a link, which is used up with it. address: of the browser.

        A right link is never throttled: it cannot be guessed, and wrong tries of others must not keep its owner out.
        Raises ApiError: UNAUTHENTICATED for a link that is wrong, used or too old; RATE_LIMITED after too many of them.
        """
        now = self._clock.now()
        is_it = (LINKS.c.token_hash == _hash(token)) & (LINKS.c.expires_at > now)
        session, adding = self._begun(None, self._admin_key)

        def work(connection: Connection) -> bool:
            if not connection.execute(delete(LINKS).where(is_it)).rowcount:
                return False
            connection.execute(adding)
            return True

        if await self._database.change(work):
            return session
        self._tries.enter((_ANY_NAME, address))
        raise ApiError(ErrorKind.UNAUTHENTICATED, "This link was used already, or is too old. `qwenbox console` makes a new one.")

    async def log_in(self, name: str, password: Secret, address: str) -> Session:
        """A session for a password. address: of the browser.

        Raises ApiError: UNAUTHENTICATED for a wrong name or password, FORBIDDEN for an account that may not administer the box,
        RATE_LIMITED after too many wrong tries for this name from this address, or from this address at all.
        """
        guessers = ((name, address), (_ANY_NAME, address))
        self._tries.enter(*guessers)
        proven = await self._accounts.prove(name, password)
        self._tries.clear(*guessers)
        if proven.account.role is not Role.ADMIN:
            raise ApiError(ErrorKind.FORBIDDEN, "This account may not use the console; an account with the role admin may.")
        session, adding = self._begun(proven.account, proven.proof)
        await self._database.write(delete(SESSIONS).where(SESSIONS.c.expires_at <= self._clock.now()), adding)
        return session

    async def check(self, token: Secret) -> Session:
        """The session, whose end moves away with this use. Raises ApiError(UNAUTHENTICATED) when it is over."""
        row, proven = await self._found(token)
        expires_at = self._expiry(row.created_at)
        if expires_at - row.expires_at >= self._session_s * _SLIDE_SHARE:
            is_earlier = (SESSIONS.c.token_hash == _hash(token)) & (SESSIONS.c.expires_at < expires_at)
            await self._database.write(update(SESSIONS).where(is_earlier).values(expires_at=expires_at))
        else:
            expires_at = row.expires_at
        return Session(token=token, account=proven.account.name if proven else "", expires_at=expires_at)

    async def end(self, token: Secret) -> None:
        """At once, everywhere; nothing happens for one that is over."""
        await self._database.write(delete(SESSIONS).where(SESSIONS.c.token_hash == _hash(token)))

    async def set_password(self, account: str, password: Secret, token: Secret | None = None) -> None:
        """Change an account's password, which ends its sessions but the one it is changed from. token: of that one.

        Raises like Accounts.set_password, and UNAUTHENTICATED for a session that is over.
        """
        if token is None or not await self._is_of(account, token):
            await self._accounts.set_password(account, password)
            return

        def keep(proof: Secret) -> Update:
            return update(SESSIONS).where(SESSIONS.c.token_hash == _hash(token)).values(credential_mark=_mark(token, proof))

        # Together: a page of that session that asks in between must not be told that it is over.
        await self._accounts.set_password(account, password, keep)

    async def has_password(self) -> bool:
        """Whether anybody could log in with one."""
        return await self._accounts.has_admin_password()

    async def _is_of(self, account: str, token: Secret) -> bool:
        """Whether the session is the account's."""
        found = await self._accounts.get(account)
        row, _ = await self._found(token)
        return row.account_id == found.id

    async def _found(self, token: Secret) -> tuple[_Row, Proven | None]:
        try:
            return await self._looked_up(token)
        except ApiError as error:
            if error.kind is not ErrorKind.UNAUTHENTICATED:
                raise
            # Session and account are read one after the other: a change of the password may have come between.
            return await self._looked_up(token)

    async def _looked_up(self, token: Secret) -> tuple[_Row, Proven | None]:
        rows = await self._database.read(select(SESSIONS).where(SESSIONS.c.token_hash == _hash(token)))
        if not rows:
            raise _over()
        row = msgspec.convert(rows[0], _Row)
        if row.expires_at <= self._clock.now():
            raise _over()
        if row.account_id is None:
            proven, credential = None, self._admin_key
        else:
            proven = await self._accounts.proven(row.account_id)
            if proven is None or proven.account.role is not Role.ADMIN:
                raise _over()
            credential = proven.proof
        if not hmac.compare_digest(row.credential_mark, _mark(token, credential)):
            raise _over()
        return row, proven

    def _drawn(self) -> Link:
        return Link(token=_token(), expires_at=self._clock.now() + LINK_S)

    def _adding(self, link: Link) -> Insert:
        values = {"token_hash": _hash(link.token), "created_at": self._clock.now(), "expires_at": link.expires_at}
        return insert(LINKS).values(values)

    def _begun(self, account: Account | None, credential: Secret) -> tuple[Session, Insert]:
        """A new session and the statement that keeps it."""
        token, now = _token(), self._clock.now()
        session = Session(token=token, account=account.name if account else "", expires_at=self._expiry(now))
        values = {
            "token_hash": _hash(token),
            "account_id": account.id if account else None,
            "credential_mark": _mark(token, credential),
            "created_at": now,
            "expires_at": session.expires_at,
        }
        return session, insert(SESSIONS).values(values)

    def _expiry(self, created_at: float) -> float:
        return min(self._clock.now() + self._session_s, created_at + MOST_SESSION_S)


def _token() -> Secret:
    return Secret(secrets.token_urlsafe(_TOKEN_BYTES))


def _hash(token: Secret) -> str:
    # Of 32 random bytes: nothing slower is needed.
    return hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).hexdigest()


def _mark(token: Secret, credential: Secret) -> str:
    """Says whether a credential is the one the session began with. Keyed with the token, which is kept nowhere: who reads the database
    cannot try credentials with it."""
    return hmac.digest(
        token.reveal().encode("utf-8", "surrogatepass"), credential.reveal().encode("utf-8", "surrogatepass"), "sha256"
    ).hex()


def _over() -> ApiError:
    return ApiError(ErrorKind.UNAUTHENTICATED, "This session is over. Please log in again.")
