"""This is where text becomes token ids and back in this process, with the vocabulary of the weights themselves."""

import hashlib
import re
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import tiktoken

from qwenbox.engines import gguf as gguf_file
from qwenbox.engines.gguf import Gguf
from qwenbox.terms.errors import ApiError, ErrorKind

CONTROL: Final = 3
USER_DEFINED: Final = 4

# How text is cut before byte pairs are merged, by `tokenizer.ggml.pre`; llama.cpp's own expressions (llama-vocab.cpp).
_QWEN2: Final = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN35: Final = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS: Final = {"qwen2": _QWEN2, "deepseek-r1-qwen": _QWEN2, "qwen35": _QWEN35}

_BYTES: Final = 256
_SERVICE_CONTROLS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205)))
_SERVICE_PIECE: Final = 100_000
# The regex engine under tiktoken gives up on (and merges slowly over) pieces of megabytes without a break.
_LONGEST_RUN: Final = 200_000


class Tokenizer:
    """One vocabulary. Ids are those of the weights; safe to use from threads."""

    def __init__(self, gguf: Gguf) -> None:
        """Takes about half a second and 60 MB; `Vocabularies` shares it between engines. Raises ApiError(ENGINE_FAILED) if unknown."""
        pattern = PATTERNS.get(gguf.pretokenizer)
        if gguf.tokenizer != "gpt2" or pattern is None:
            raise ApiError(
                ErrorKind.ENGINE_FAILED,
                f"{gguf.path.name} splits text in a way that is not known here ({gguf.pretokenizer or gguf.tokenizer}); "
                f"known: {', '.join(PATTERNS)}.",
            )
        self.control = _special(gguf, CONTROL)
        self._user_defined = frozenset(_special(gguf, USER_DEFINED))
        self._all_special = self._user_defined | frozenset(self.control)
        specials = {**self.control, **_special(gguf, USER_DEFINED)}
        self._ranks = _ranks(gguf)
        self._encoding = tiktoken.Encoding("gguf", pat_str=pattern, mergeable_ranks=self._ranks, special_tokens=specials)
        self._service: tiktoken.Encoding | None = None
        names = "|".join(map(re.escape, sorted(self.control, key=len, reverse=True)))
        self._control_pattern = re.compile(f"({names or '(?!)'})")

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; the names of control tokens in it become those tokens."""
        return self._encode(text, self._all_special)

    def encode_plain(self, text: str) -> list[int]:
        """Ids of `text`; the names of control tokens in it stay text, so that nobody can forge a turn."""
        return self._encode(text, self._user_defined)

    def guard(self, text: str, mark: str) -> str:
        """`text` with `mark` inside the name of each control token, so that it is none until `encode_guarded` takes the mark out."""
        return self._control_pattern.sub(lambda found: f"{found[0][0]}{mark}{found[0][1:]}", text) if "<" in text or "[" in text else text

    def encode_guarded(self, text: str, mark: str) -> list[int]:
        """Ids of `text`: control tokens where a name stands bare, plain text where `guard` put its mark."""
        if mark not in text:
            return self.encode(text)
        ids: list[int] = []
        for piece in self._control_pattern.split(text):
            if piece in self.control:
                ids.append(self.control[piece])
            elif piece:
                ids.extend(self.encode_plain(piece.replace(mark, "")))
        return ids

    def encode_as_service(self, text: str) -> list[int]:
        """Ids of `text` as the service's own tokenizer has them, in its SDK and behind its address: normalised (NFC), and with the control
        tokens of the first Qwen, which are those of all later ones as far as chats go.

        Source: dashscope 2.0.2, tokenizers/qwen_tokenizer.py.
        """
        if self._service is None:
            specials = {name: len(self._ranks) + place for place, name in enumerate(_SERVICE_CONTROLS)}
            self._service = tiktoken.Encoding("qwen", pat_str=_QWEN2, mergeable_ranks=self._ranks, special_tokens=specials)
        ids: list[int] = []
        for piece in _service_pieces(unicodedata.normalize("NFC", text)):
            ids.extend(self._service.encode(piece, allowed_special="all", disallowed_special=()))
        return ids

    def service_text(self, token: int) -> str:
        """What an id of `encode_as_service` stands for."""
        place = token - len(self._ranks)
        return _SERVICE_CONTROLS[place] if place >= 0 else self.raw(token).decode("utf-8", "replace")

    def raw(self, token: int) -> bytes:
        """The bytes of one token; b"" for an id that stands for no text."""
        try:
            return self._encoding.decode_single_token_bytes(token)
        except KeyError:
            return b""

    def text(self, tokens: Sequence[int]) -> str:
        """Their text; half characters at either end are left out, those inside become U+FFFD."""
        data = b"".join(map(self.raw, tokens))
        start = 0
        while start < len(data) and start < 4 and data[start] & 0xC0 == 0x80:
            start += 1
        return data[start : _whole_length(data)].decode("utf-8", "replace")

    def _encode(self, text: str, specials: frozenset[str]) -> list[int]:
        if len(text) <= _LONGEST_RUN:
            return self._encoding.encode(text, allowed_special=specials, disallowed_special=())
        ids: list[int] = []
        for piece in _pieces(text):
            ids.extend(self._encoding.encode(piece, allowed_special=specials, disallowed_special=()))
        return ids


class Vocabularies:
    """Tokenizers by the vocabulary they hold: models of one family share one. Safe to use from threads."""

    def __init__(self) -> None:
        self._known: dict[bytes, Tokenizer] = {}
        self._at: dict[Path, Tokenizer] = {}
        self._building = threading.Lock()

    def at(self, path: Path) -> Tokenizer:
        """The tokenizer of the GGUF file there, read once. Raises ApiError like `gguf.read` and `Tokenizer`."""
        if path not in self._at:
            self._at[path] = self.of(gguf_file.read(path))
        return self._at[path]

    def of(self, gguf: Gguf) -> Tokenizer:
        """The tokenizer of `gguf`, built on first use. Raises ApiError like `Tokenizer`."""
        digest = hashlib.sha256(gguf.pretokenizer.encode())
        digest.update("\n".join(gguf.tokens).encode("utf-8", "surrogatepass"))
        digest.update(repr(gguf.token_types).encode())
        key = digest.digest()
        with self._building:
            if key not in self._known:
                self._known[key] = Tokenizer(gguf)
            return self._known[key]


def _pieces(text: str) -> list[str]:
    """`text` in pieces of at most _LONGEST_RUN characters, cut between lines where there are any.

    A cut between a line break and a letter never changes the ids: no pretoken spans it. Only a single line longer than a
    piece is cut elsewhere.
    """
    pieces: list[str] = []
    start = 0
    while len(text) - start > _LONGEST_RUN:
        end = start + _LONGEST_RUN
        cut = _line_start(text, start, end)
        pieces.append(text[start : cut or end])
        start = cut or end
    pieces.append(text[start:])
    return pieces


def _service_pieces(text: str) -> list[str]:
    """As the service's tokenizer cuts a text of more than 100,000 characters: before line breaks, where that is often enough."""
    if len(text) <= _SERVICE_PIECE:
        return [text]
    lines = [line if number == 0 else f"\n{line}" for number, line in enumerate(text.split("\n"))]
    pieces: list[str] = []
    begun: list[str] = []
    length = 0
    for part in (line[start : start + _SERVICE_PIECE] for line in lines for start in range(0, max(len(line), 1), _SERVICE_PIECE)):
        if length + len(part) > _SERVICE_PIECE and begun:
            pieces.append("".join(begun))
            begun, length = [], 0
        begun.append(part)
        length += len(part)
    return [*pieces, "".join(begun)]


def _line_start(text: str, start: int, end: int) -> int | None:
    """The last position in (start, end] right after a line break and right before something that is no white space."""
    at = text.rfind("\n", start, end - 1)
    while at > start:
        if not text[at + 1].isspace():
            return at + 1
        at = text.rfind("\n", start, at)
    return None


def _special(gguf: Gguf, kind: int) -> dict[str, int]:
    pairs = enumerate(zip(gguf.tokens, gguf.token_types, strict=False))
    return {token: number for number, (token, its_kind) in pairs if its_kind == kind and token}


def _ranks(gguf: Gguf) -> dict[bytes, int]:
    """Bytes of every ordinary token → its rank, which is its id.

    Qwen's files list single bytes first and then each merge in order; anything else would tokenise wrongly, so it is refused.
    """
    alphabet = _byte_alphabet()
    merges = gguf.merges
    tokens = gguf.tokens
    try:
        if all(tokens[_BYTES + rank] == merge.replace(" ", "", 1) for rank, merge in enumerate(merges)):
            return {bytes(alphabet[letter] for letter in tokens[number]): number for number in range(_BYTES + len(merges))}
    except LookupError:
        pass  # more merges than tokens, or letters of another alphabet
    raise ApiError(ErrorKind.ENGINE_FAILED, f"{gguf.path.name} numbers its vocabulary in an order that is not known here.")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others follow from U+0100 on (openai/gpt-2, encoder.py)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(_BYTES) if byte not in set(printable))
    return alphabet | {chr(_BYTES + place): byte for place, byte in enumerate(others)}


def _whole_length(data: bytes) -> int:
    """How much of `data` ends on a whole UTF-8 character."""
    for back in range(1, min(4, len(data)) + 1):
        lead = data[-back]
        if lead & 0xC0 == 0x80:
            continue
        need = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
        return len(data) if need <= back else len(data) - back
    return len(data)
