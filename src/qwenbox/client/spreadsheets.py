"""This is where tables become CSV that a spreadsheet shows and does not run."""

import csv
import io
from collections.abc import Iterable, Sequence

# A text that starts like this is a formula to one spreadsheet or another, the wide ones in Chinese and Japanese settings.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def rows(values: Iterable[Sequence[object]]) -> str:
    """Lines of CSV. A text that could be a formula gets an apostrophe in front, as spreadsheets themselves mark a text."""
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    for row in values:
        table.writerow([_inert(value) for value in row])
    return written.getvalue()


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA) else value
