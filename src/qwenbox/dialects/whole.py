"""This is where an answer that is one JSON is told, and how long its input was, once a server has told; the same in every dialect."""

from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

import msgspec

from qwenbox.dialects.base import Head
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import ChatEvent, Completed, Started
from qwenbox.terms.usage import Usage

JSON_HEAD: Final = Head(status=200, media_type="application/json")

P = TypeVar("P")

_ENCODER: Final = msgspec.json.Encoder()


class WholeReply(Generic[P]):
    """A Reply that is silent until Completed.

    piece: what an event adds to the answer; None for one that adds nothing. answer: all of it, from the pieces in their order. error:
    the dialect's own shape.
    """

    def __init__(
        self,
        piece: Callable[[ChatEvent], P | None],
        answer: Callable[[list[P], Usage], msgspec.Struct],
        error: Callable[[ApiError], bytes],
    ) -> None:
        self._piece = piece
        self._answer = answer
        self._error = error
        self._pieces: list[P] = []

    @property
    def head(self) -> Head:
        return JSON_HEAD

    def event(self, event: ChatEvent) -> bytes:
        if isinstance(event, Completed):
            return _ENCODER.encode(self._answer(self._pieces, event.usage))
        piece = self._piece(event)
        if piece is not None:
            self._pieces.append(piece)
        return b""

    def error(self, error: ApiError) -> bytes:
        return self._error(error)

    def heartbeat(self) -> bytes:
        return b""


def heard(made: Iterable[ChatEvent], input_tokens: int | None) -> list[ChatEvent]:
    """The events of an answer that came in one piece. input_tokens: as its server told them; None: it did not, and they are counted."""
    tokens = input_tokens or 0
    usage = Usage(input_tokens=tokens, output_tokens=0, is_counted=input_tokens is None)
    return [Started(input_tokens=tokens), *made, Completed(usage=usage)]
