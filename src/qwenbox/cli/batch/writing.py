"""This is where the output of `qwenbox batch run` is written: a row for each request, in the order of the input, as JSONL or a table."""

import csv
import io
from collections.abc import Callable
from decimal import Decimal
from typing import BinaryIO, TypeAlias

import msgspec

from qwenbox.client.batch_input import Asked
from qwenbox.client.batch_results import Row, usage

_ENCODER = msgspec.json.Encoder()

Write: TypeAlias = Callable[[Asked, Row, bytes], None]


def rows_to(target: BinaryIO) -> Write:
    """JSONL: one `Row` a line."""
    return lambda asked, of, result: _put(target, _ENCODER.encode(of))


def results_to(target: BinaryIO) -> Write:
    """JSONL: the service's own result lines, untouched."""
    return lambda asked, of, result: _put(target, result)


def table_to(target: BinaryIO, header: tuple[str, ...], delimiter: str) -> Write:
    """A table: the input's columns (line and custom_id where it was none), then what became of the row."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    own = header or ("line", "custom_id")
    writer.writerow((*own, *(_free(name, own) for name in ("answer", "finish_reason", "input_tokens", "output_tokens", "cost", "error"))))

    def write(asked: Asked, of: Row, result: bytes) -> None:
        tokens = usage(of)
        writer.writerow(
            (
                *(asked.cells if header else (str(of.line), of.custom_id)),
                of.answer or "",
                of.finish_reason or "",
                tokens.input_tokens if tokens else "",
                tokens.output_tokens if tokens else "",
                f"{Decimal(of.cost_micros).scaleb(-6):f}" if isinstance(of.cost_micros, int) else "",
                f"{of.error.code}: {of.error.message}" if of.error else "",
            )
        )
        target.write(text.getvalue().encode())
        text.seek(0)
        text.truncate()

    return write


def _put(target: BinaryIO, line: bytes) -> None:
    target.write(line + b"\n")


def _free(name: str, taken: tuple[str, ...]) -> str:
    while name in taken:
        name += "_"
    return name
