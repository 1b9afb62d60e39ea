"""This is where lines found all over a picture become text as a person would read it out: rows, columns, blocks and where they stand."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Final

import msgspec

from qwenbox.engines.reader.pictures import Line

# Of a line's height: the gap that parts columns, and the one that parts blocks.
COLUMN_GAP: Final = 1.5
BLOCK_GAP: Final = 1.3
COLUMN: Final = " | "
# Turned by less, a page is straight.
_STRAIGHT_DEGREES: Final = 1.0
_TALL: Final = 1.5


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that stand together. rows: each with its columns parted by `COLUMN`.

    across, down: where its middle is, as a share of the picture's width and height, 0 to 1. breadth: of the picture's width.
    """

    rows: tuple[str, ...]
    across: float
    down: float
    breadth: float


class _Box(msgspec.Struct, frozen=True):
    """A line, turned upright."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2

    @property
    def height(self) -> float:
        return max(self.bottom - self.top, 1.0)


def blocks(lines: Sequence[Line], width: int, height: int) -> list[Block]:
    """The text of a picture of that size, in reading order."""
    if not lines:
        return []
    angle = _angle(lines)
    boxes = [_upright(line, angle) for line in lines]
    rows = _rows(boxes)
    typical = median(box.height for box in boxes)
    found: list[list[list[_Box]]] = []
    for row in rows:
        if found and min(box.top for box in row) - max(box.bottom for box in found[-1][-1]) <= BLOCK_GAP * typical:
            found[-1].append(row)
        else:
            found.append([row])
    return [_block(block, angle, width, height) for block in found]


def _angle(lines: Sequence[Line]) -> float:
    """By how much the text is turned, in radians; 0.0 when it is straight enough."""
    slopes = [
        math.atan2(line.corners[1][1] - line.corners[0][1], line.corners[1][0] - line.corners[0][0])
        for line in lines
        if len(line.corners) == 4 and len(line.text) > 2
    ]
    angle = median(slopes) if slopes else 0.0
    return angle if _STRAIGHT_DEGREES < math.degrees(abs(angle)) < 45 else 0.0


def _upright(line: Line, angle: float) -> _Box:
    turned = [_turned(x, y, -angle) for x, y in line.corners] or [(0.0, 0.0)]
    across, down = [x for x, _ in turned], [y for _, y in turned]
    return _Box(line.text, min(across), min(down), max(across), max(down))


def _turned(x: float, y: float, angle: float) -> tuple[float, float]:
    return x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)


def _rows(level: Sequence[_Box]) -> list[list[_Box]]:
    """Boxes of one height side by side; each from left to right. Text that runs downwards is read from the right, a line a row."""
    if sum(box.height > _TALL * (box.right - box.left) and len(box.text) > 1 for box in level) > len(level) / 2:
        return [[box] for box in sorted(level, key=lambda box: (-box.right, box.top))]
    rows: list[list[_Box]] = []
    for box in sorted(level, key=lambda box: box.middle):
        row = rows[-1] if rows else []
        if row and abs(box.middle - sum(other.middle for other in row) / len(row)) < 0.5 * min(box.height, min(o.height for o in row)):
            row.append(box)
        else:
            rows.append([box])
    for row in rows:
        row.sort(key=lambda box: box.left)
    return rows


def _block(rows: list[list[_Box]], angle: float, width: int, height: int) -> Block:
    boxes = [box for row in rows for box in row]
    left, right = min(box.left for box in boxes), max(box.right for box in boxes)
    top, bottom = min(box.top for box in boxes), max(box.bottom for box in boxes)
    x, y = _turned((left + right) / 2, (top + bottom) / 2, angle)
    return Block(
        rows=tuple(_joined(row) for row in rows),
        across=min(max(x / max(width, 1), 0.0), 1.0),
        down=min(max(y / max(height, 1), 0.0), 1.0),
        breadth=min((right - left) / max(width, 1), 1.0),
    )


def _joined(row: Sequence[_Box]) -> str:
    pieces = [row[0].text]
    for before, box in pairwise(row):
        is_column = box.left - before.right > COLUMN_GAP * min(before.height, box.height)
        pieces.append((COLUMN if is_column else " ") + box.text)
    return "".join(pieces)
