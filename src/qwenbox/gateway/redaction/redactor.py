"""This is where a request leaves without personal data: placeholders out, values back in the answer, or refused as a whole."""

from collections.abc import AsyncIterator, Callable, Mapping

import msgspec

from qwenbox.gateway.catalog import Request
from qwenbox.gateway.redaction.config import Mode
from qwenbox.gateway.redaction.found import Found
from qwenbox.gateway.redaction.mend import Names
from qwenbox.gateway.redaction.placeholders import Placeholders
from qwenbox.gateway.redaction.restore import Restored, Restorer
from qwenbox.gateway.redaction.rewrite import (
    Change,
    rewritten_chat,
    rewritten_embedding,
    rewritten_image,
    rewritten_prompt,
    rewritten_rerank,
)
from qwenbox.terms.chat import AnyText, ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.embedding import EmbeddingRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.image import ImageRequest
from qwenbox.terms.rerank import RerankRequest


class Redacted:
    """A request that may leave. notes: {"redacted": {kind: how many}}; the values are in no attribute and no repr."""

    def __init__(self, request: Request, names: Placeholders) -> None:
        self.request = request
        self.notes: Mapping[str, object] = {"redacted": dict(sorted(names.counts.items()))}
        self._spellings = names.spellings

    def restore(self, events: AsyncIterator[ChatEvent]) -> AsyncIterator[ChatEvent]:
        """The answer's events with the values back."""
        is_json = isinstance(self.request, ChatRequest) and not isinstance(self.request.response_format, AnyText)
        arguments = Names(self._spellings, is_json=True)
        text = arguments if is_json else Names(self._spellings, is_json=False)
        return Restored(events, Restorer(text, arguments))


class Redactor:
    """What keeps personal data from one deployment."""

    def __init__(self, mode: Mode, find: Callable[[str], list[Found]], *, lets_pictures_pass: bool = True) -> None:
        """find: see detector.py. lets_pictures_pass: False refuses them."""
        self._mode = mode
        self._find = find
        self._lets_pictures_pass = lets_pictures_pass

    def redact(self, request: Request) -> Redacted | None:
        """None when nothing was found.

        Raises ApiError(CONTENT_REJECTED) in mode BLOCK, naming kinds and never values, and for pictures that may not pass.
        """
        if not self._lets_pictures_pass and _holds_pictures(request):
            raise ApiError(ErrorKind.CONTENT_REJECTED, "Input data may contain inappropriate content: pictures must not leave here.")
        request, names = self._replaced(request)
        if not names.counts:
            return None
        if self._mode is Mode.BLOCK:
            kinds = ", ".join(sorted(names.counts))
            raise ApiError(
                ErrorKind.CONTENT_REJECTED,
                f"Input data may contain inappropriate content: personal data ({kinds}) that must not leave here.",
            )
        return Redacted(request, names)

    def _replaced(self, request: Request) -> tuple[Request, Placeholders]:
        names = Placeholders(lambda: msgspec.json.encode(request).decode())

        def changes(text: str) -> list[Change]:
            found = [(each, text[each.start : each.end]) for each in self._find(text)]
            return [(each.start, each.end, names.name(each, spelling)) for each, spelling in found if not names.has(spelling)]

        match request:
            case ChatRequest():
                return rewritten_chat(request, changes), names
            case CompletionRequest():
                return rewritten_prompt(request, changes), names
            case EmbeddingRequest():
                return rewritten_embedding(request, changes), names
            case RerankRequest():
                return rewritten_rerank(request, changes), names
            case _:
                return rewritten_image(request, changes), names


def _holds_pictures(request: Request) -> bool:
    match request:
        case ChatRequest():
            return request.has_pictures
        case ImageRequest():
            return bool(request.images)
        case _:
            return False
