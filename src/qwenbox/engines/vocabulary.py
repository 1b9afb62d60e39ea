"""This is where texts are counted for a server that does not: with a vocabulary that lies on this machine."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from qwenbox.engines.tokenizer import Tokenizer, Vocabularies
from qwenbox.terms.engine import Token
from qwenbox.terms.errors import ApiError, ErrorKind

_log = logging.getLogger(__name__)

# Below this many characters tokenising is quicker than handing it to a thread.
_THREAD_CHARACTERS = 10_000


class Vocabulary:
    """The first vocabulary of `places` that can be read; read when something is to be counted (0.7 s), and then kept.

    places: files of weights that are here now. Asked again until one can be read, since a pull may bring one.
    """

    def __init__(self, places: Callable[[], Iterable[Path]], vocabularies: Vocabularies) -> None:
        self._places = places
        self._vocabularies = vocabularies
        self._tokenizer: Tokenizer | None = None
        self._unusable: set[Path] = set()
        self._reading = anyio.Lock()

    async def count_texts(self, texts: Sequence[str], *, has_controls: bool = False) -> list[int] | None:
        """As `TextCounter.count_texts`."""
        tokenizer = self._tokenizer or await self._read()
        if tokenizer is None:
            return None
        if sum(map(len, texts)) < _THREAD_CHARACTERS:
            return _counts(tokenizer, texts, has_controls)
        return await anyio.to_thread.run_sync(_counts, tokenizer, texts, has_controls, abandon_on_cancel=True)

    async def split_texts(self, texts: Sequence[str]) -> list[Token] | None:
        """As `TextSplitter.split_texts`, as the service does."""
        tokenizer = self._tokenizer or await self._read()
        if tokenizer is None:
            return None
        return await anyio.to_thread.run_sync(service_tokens, tokenizer, texts, abandon_on_cancel=True)

    async def _read(self) -> Tokenizer | None:
        async with self._reading:
            # Whoever waited here finds it read.
            for path in () if self._tokenizer else self._places():
                if path not in self._unusable and await self._try(path):
                    break
            return self._tokenizer

    async def _try(self, path: Path) -> bool:
        try:
            self._tokenizer = await anyio.to_thread.run_sync(self._vocabularies.at, path, abandon_on_cancel=True)
        except ApiError as error:
            self._unusable.add(path)
            _log.info("Nothing is counted with %s: %s", path.name, error.message)
        return self._tokenizer is not None


def service_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Token]:
    """As `TextSplitter.split_texts`. Raises ApiError(INVALID_REQUEST) for a text that no tokenizer could take apart."""
    try:
        ids = [token for text in texts for token in tokenizer.encode_as_service(text)]
    except ValueError as error:
        text = "The text cannot be split: a part of it is too long without a break."
        raise ApiError(ErrorKind.INVALID_REQUEST, text, param="input") from error
    return [Token(id=token, text=tokenizer.service_text(token)) for token in ids]


def _counts(tokenizer: Tokenizer, texts: Sequence[str], has_controls: bool) -> list[int] | None:
    encode = tokenizer.encode if has_controls else tokenizer.encode_plain
    try:
        return [len(encode(text)) for text in texts]
    except ValueError:
        return None  # the regex engine gave up on a text made for that; its call must be booked all the same
