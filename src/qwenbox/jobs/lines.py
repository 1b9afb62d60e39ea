"""This is where a batch's input file is read: line by line in constant memory, and checked as a whole before any line is run."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import BinaryIO

import msgspec

from qwenbox.dialects.openai import batches as wire
from qwenbox.terms.job import BatchFault

# So many faults are told; a file that is wrong throughout has one for each line.
_MOST_FAULTS = 100
# A part has this share of a batch's lines, between one and _PART_LINES: small enough to share out, large enough to be cheap.
_PARTS, _PART_LINES = 200, 50
_BOM = b"\xef\xbb\xbf"


class LinesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch's file may hold."""

    most_lines: int
    line_limit_bytes: int


class Part(msgspec.Struct, frozen=True):
    """A run of lines: index of the first, from 0 and without blank lines; how many; where the first begins, in bytes."""

    first: int
    count: int
    offset_bytes: int


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds; with faults it is not run."""

    model: str
    total: int
    parts: tuple[Part, ...]
    faults: tuple[BatchFault, ...]


class TooLong(Exception):
    """A line is longer than it may be; the argument is its number, from 1."""


def read(handle: BinaryIO, limit_bytes: int, offset_bytes: int = 0) -> Generator[tuple[int, int, bytes]]:
    """Lines that are not blank: number in the file from where it is read (1 is the first), offset in bytes, text without its end.

    Raises TooLong.
    """
    handle.seek(offset_bytes)
    number, at = 0, offset_bytes
    while data := handle.readline(limit_bytes + 2):
        number += 1
        begun, at = at, at + len(data)
        text = data.rstrip(b"\r\n")
        if len(text) > limit_bytes:
            raise TooLong(number)
        if begun == 0:
            text = text.removeprefix(_BOM)
        if text.strip():
            yield number, begun, text


def of_part(path: Path, part: Part, limit_bytes: int) -> Generator[tuple[int, bytes]]:
    """Index and text of each line of a part."""
    with path.open("rb") as handle:
        for index, (_, _, text) in zip(
            range(part.first, part.first + part.count), read(handle, limit_bytes, part.offset_bytes), strict=False
        ):
            yield index, text


def check(path: Path, endpoint: str, config: LinesConfig, is_known: Callable[[str], bool]) -> Checked:
    """Read the whole file. is_known: whether lines may ask this model."""
    checking = _Checking(endpoint, config, is_known)
    try:
        with path.open("rb") as handle:
            for number, begun, text in read(handle, config.line_limit_bytes):
                if checking.offsets and len(checking.offsets) >= checking.most_lines:
                    checking.fault(number, "too_many_lines", f"A file may have {checking.most_lines} lines.")
                    break
                checking.take(number, begun, text)
    except TooLong as error:
        checking.fault(int(error.args[0]), "line_too_long", f"A line may have {config.line_limit_bytes} bytes.")
    if not checking.offsets and not checking.faults:
        checking.faults.append(BatchFault(code="empty_file", message="The input file has no lines."))
    return checking.result()


class _Checking:
    def __init__(self, endpoint: str, config: LinesConfig, is_known: Callable[[str], bool]) -> None:
        self.offsets: list[int] = []
        self.faults: list[BatchFault] = []
        is_test = endpoint == wire.TEST
        self.most_lines = min(config.most_lines, wire.TEST_LINES) if is_test else config.most_lines
        self._is_known: Callable[[str], bool] = wire.TEST_MODEL.__eq__ if is_test else is_known
        self._endpoint = endpoint
        self._model = ""
        self._ids: set[str] = set()

    def take(self, number: int, begun: int, text: bytes) -> None:
        self.offsets.append(begun)
        line = wire.line(text, self._endpoint)
        if isinstance(line, BatchFault):
            self._add(msgspec.structs.replace(line, line=number))
            return
        if line.custom_id in self._ids:
            self.fault(number, "duplicate_custom_id", f"The custom_id '{line.custom_id[:64]}' is in the file before.", "custom_id")
        self._ids.add(line.custom_id)
        if not self._model:
            self._model = line.model
            if not self._is_known(line.model):
                self.fault(number, "model_not_found", f"The provided model {line.model[:64]} is not supported by the Batch API.", "model")
        elif line.model != self._model:
            text_ = f"The model {line.model[:64]} does not match the model {self._model[:64]} of the lines before: one model per file."
            self.fault(number, "mismatched_model", text_, "model")

    def fault(self, number: int, code: str, message: str, param: str | None = None) -> None:
        self._add(BatchFault(code=code, message=message, param=param, line=number))

    def _add(self, fault: BatchFault) -> None:
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(fault)

    def result(self) -> Checked:
        total = len(self.offsets)
        size = max(1, min(_PART_LINES, total // _PARTS))
        parts = tuple(Part(first, min(size, total - first), self.offsets[first]) for first in range(0, total, size))
        return Checked(model=self._model, total=total, parts=parts, faults=tuple(self.faults))
