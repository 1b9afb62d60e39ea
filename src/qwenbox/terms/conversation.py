"""This is where a stored response says what it is, apart from the wire its bytes are written in."""

import msgspec


class StoredResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An answer kept to be gone on from. input: what this turn asked, response: the whole answer; JSON of the dialect that made them."""

    id: str
    account_id: str
    previous_id: str | None
    input: bytes
    response: bytes


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A chain of stored responses. turns: (input, response), oldest first. root_id: the first one's id."""

    root_id: str
    chain_bytes: int
    turns: tuple[tuple[bytes, bytes], ...]
