"""This is where the requests and results of a run lie while it works: files without a name, gone with the process."""

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from qwenbox.client.batch_input import Asked

_ENCODER = msgspec.json.Encoder()
_ASKED = msgspec.json.Decoder(Asked)


class Pieces:
    """Byte texts by number, on disk; a number that was put again has its last text."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by __exit__)
        self._places = array("q")
        self._sizes = array("q")
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def put(self, number: int, data: bytes) -> None:
        missing = number + 1 - len(self._places)
        if missing > 0:
            self._places.extend([-1] * missing)
            self._sizes.extend([0] * missing)
        self._file.seek(self._end)
        self._file.write(data)
        self._places[number], self._sizes[number] = self._end, len(data)
        self._end += len(data)

    def get(self, number: int) -> bytes | None:
        if number >= len(self._places) or self._places[number] < 0:
            return None
        self._file.seek(self._places[number])
        return self._file.read(self._sizes[number])


class Requests:
    """All requests of a run, in the order of the input."""

    def __init__(self, pieces: Pieces, asked: Iterable[Asked]) -> None:
        self._pieces = pieces
        for number, each in enumerate(asked):
            pieces.put(number, _ENCODER.encode(each))

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, number: int) -> Asked:
        data = self._pieces.get(number)
        if data is None:
            raise IndexError(number)
        return _ASKED.decode(data)

    def __iter__(self) -> Iterator[Asked]:
        for number in range(len(self)):
            yield self[number]
