"""This is where answers are kept that callers go on from by id: stored responses, each with what was asked, chained by the one before.

What is kept is opaque here: JSON of whichever dialect wrote it. Nothing is kept unless its caller let it be.
"""

from contextlib import suppress

import msgspec
from sqlalchemy import Column, ColumnElement, Float, Index, Integer, LargeBinary, Table, Text, delete, insert, select, text, update

from qwenbox.clock import Clock
from qwenbox.db import METADATA, Database
from qwenbox.terms.conversation import History, StoredResponse
from qwenbox.terms.errors import ApiError, ErrorKind

STORED_RESPONSES = Table(
    "stored_responses",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("previous_id", Text),
    # The first of the chain, and how long the chain is with this one.
    Column("root_id", Text, nullable=False),
    Column("turns", Integer, nullable=False),
    Column("chain_bytes", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    # Holds all that choosing what to forget needs, so that it does not read what was said.
    Index("stored_responses_by_account", "account_id", "created_at", "id", "size_bytes"),
    Index("stored_responses_by_root", "root_id"),
    Index("stored_responses_by_end", "expires_at"),
)

_CHAIN = text(
    "WITH RECURSIVE chain (id, previous_id, turns, input, response) AS ("
    "SELECT id, previous_id, turns, input, response FROM stored_responses "
    "WHERE id = :id AND account_id = :account_id AND expires_at > :now "
    "UNION ALL SELECT older.id, older.previous_id, older.turns, older.input, older.response "
    "FROM stored_responses AS older JOIN chain ON older.id = chain.previous_id "
    "WHERE older.account_id = :account_id AND older.expires_at > :now AND older.turns < chain.turns) "
    "SELECT id, turns, input, response FROM chain ORDER BY turns"
)
_TRIM = text(
    "DELETE FROM stored_responses WHERE id IN (SELECT id FROM (SELECT id, "
    "SUM(size_bytes) OVER (PARTITION BY account_id ORDER BY created_at DESC, id DESC) AS total FROM stored_responses) AS sums "
    "WHERE total > :most)"
)

_DAY_S = 86_400.0
_SWEEP_EVERY_S = 60.0


class ConversationsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[conversations]`: whether responses are stored at all, and for how many days after they or a later turn were made.

    max_turns, max_bytes: of one chain. account_bytes: of all an account has stored; beyond it the oldest are forgotten.
    """

    enabled: bool = True
    keep_days: float = 7.0
    max_turns: int = 500
    max_bytes: int = 32 * 1024 * 1024
    account_bytes: int = 1024 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.keep_days <= 0 or self.max_turns < 1 or self.max_bytes < 1 or self.account_bytes < 1:
            raise ValueError("keep_days, max_turns, max_bytes and account_bytes must be above 0")


class _Head(msgspec.Struct, frozen=True):
    root_id: str
    turns: int
    chain_bytes: int


class _Turn(msgspec.Struct, frozen=True):
    id: str
    turns: int
    input: bytes
    response: bytes


class Conversations:
    """Rows per account: another account's id is as unknown as one that never was."""

    def __init__(self, database: Database, config: ConversationsConfig, clock: Clock) -> None:
        self.config = config
        self._database = database
        self._clock = clock

    def keeps(self, wanted: bool | None) -> bool:
        """Whether an answer is stored whose caller wants it to be (None: did not say). Raises ApiError(INVALID_REQUEST) if it can't."""
        if wanted and not self.config.enabled:
            raise ApiError(
                ErrorKind.INVALID_REQUEST, "This box stores no responses ([conversations] enabled): leave store out.", param="store"
            )
        return self.config.enabled and wanted is not False

    async def history(self, account_id: str, response_id: str) -> History:
        """What was said up to and with this response. Raises ApiError(INVALID_REQUEST) for one that is not there, or whose chain is
        broken or at its longest."""
        if not self.config.enabled:
            raise _refused("This box stores no responses ([conversations] enabled): send the whole conversation as input.")
        columns = STORED_RESPONSES.c
        query = select(columns.root_id, columns.turns, columns.chain_bytes).where(*self._is(account_id, response_id))
        heads = await self._database.read(query) if _is_id(response_id) else []
        if not heads:
            raise _refused(f"Previous response with id '{_shown(response_id)}' not found.")
        head = msgspec.convert(heads[0], _Head)
        if head.turns >= self.config.max_turns or head.chain_bytes >= self.config.max_bytes:
            text = (
                f"This conversation is at its longest ({head.turns} turns, {head.chain_bytes} bytes; [conversations] max_turns, max_bytes)."
            )
            raise _refused(f"{text} Begin a new one.")
        found = await self._database.read(_CHAIN.bindparams(id=response_id, account_id=account_id, now=self._clock.now()))
        turns = msgspec.convert(found, tuple[_Turn, ...])
        if len(turns) != head.turns:
            raise _refused(f"A response before '{response_id}' was deleted: send the whole conversation as input.")
        return History(root_id=head.root_id, chain_bytes=head.chain_bytes, turns=tuple((turn.input, turn.response) for turn in turns))

    async def keep(self, response: StoredResponse, history: History | None) -> None:
        """Commit the response; its chain lives as long as it. Raises ApiError(OVERLOADED) when the database does not take it."""
        size_bytes = len(response.input) + len(response.response)
        root_id = response.id if history is None else history.root_id
        expires_at = self._clock.now() + self.config.keep_days * _DAY_S
        row = insert(STORED_RESPONSES).values(
            **msgspec.structs.asdict(response),
            root_id=root_id,
            turns=1 if history is None else len(history.turns) + 1,
            chain_bytes=size_bytes + (0 if history is None else history.chain_bytes),
            created_at=self._clock.now(),
            expires_at=expires_at,
            size_bytes=size_bytes,
        )
        if history is None:
            await self._database.write(row)
            return
        await self._database.write(row, update(STORED_RESPONSES).where(STORED_RESPONSES.c.root_id == root_id).values(expires_at=expires_at))

    async def get(self, account_id: str, response_id: str) -> StoredResponse:
        """Raises ApiError(NOT_FOUND), also for other accounts' responses."""
        columns = STORED_RESPONSES.c
        wanted = [columns[name] for name in StoredResponse.__struct_fields__]
        rows = await self._database.read(select(*wanted).where(*self._is(account_id, response_id))) if _is_id(response_id) else []
        if not rows:
            raise ApiError(ErrorKind.NOT_FOUND, f"Response with id '{_shown(response_id)}' not found.", param="response_id")
        return msgspec.convert(rows[0], StoredResponse)

    async def delete(self, account_id: str, response_id: str) -> None:
        """Raises ApiError(NOT_FOUND). Responses that went on from it can be read but not continued any more."""
        await self.get(account_id, response_id)
        await self._database.write(delete(STORED_RESPONSES).where(STORED_RESPONSES.c.id == response_id))

    async def sweep(self) -> None:
        """Forget what is over, and the oldest of accounts that store too much."""
        over = delete(STORED_RESPONSES).where(STORED_RESPONSES.c.expires_at <= self._clock.now())
        await self._database.write(over, _TRIM.bindparams(most=self.config.account_bytes))

    async def follow(self) -> None:
        """Sweep for ever; run by whoever owns the box's background tasks. An outage is tried again."""
        while True:
            with suppress(ApiError):
                await self.sweep()
            await self._clock.sleep(_SWEEP_EVERY_S)

    def _is(self, account_id: str, response_id: str) -> tuple[ColumnElement[bool], ...]:
        columns = STORED_RESPONSES.c
        return columns.id == response_id, columns.account_id == account_id, columns.expires_at > self._clock.now()


def _refused(message: str) -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, message, param="previous_response_id")


def _is_id(response_id: str) -> bool:
    # What no id can be is not asked of a database, which may refuse the very characters.
    return len(response_id) <= 128 and response_id.isascii() and response_id.isprintable()


def _shown(response_id: str) -> str:
    return response_id[:128].encode("ascii", "replace").decode()
