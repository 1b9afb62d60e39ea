"""Layout: what stands beside each other is a row, what stands apart is a block, and nothing is lost or said twice."""

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from qwenbox.engines.reader.layout import COLUMN, blocks
from qwenbox.engines.reader.pictures import Line


def line(text: str, left: float, top: float, width: float = 100.0, height: float = 20.0, turned: float = 0.0) -> Line:
    """turned: degrees, about the picture's corner."""
    angle = math.radians(turned)
    corners = ((left, top), (left + width, top), (left + width, top + height), (left, top + height))
    rotated = tuple((x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)) for x, y in corners)
    return Line(text=text, score=0.99, corners=rotated)


def rows(*lines: Line) -> list[tuple[str, ...]]:
    return [block.rows for block in blocks(lines, 800, 600)]


TABLE = (("Tea", 20, 50), ("4.50", 400, 52), ("Cake", 20, 90), ("6.00", 400, 91))


def test_blocks_are_none_when_there_is_no_text() -> None:
    assert blocks((), 800, 600) == []


def test_columns_of_a_row_are_parted_when_they_stand_apart() -> None:
    assert rows(*(line(*cell) for cell in TABLE)) == [(f"Tea{COLUMN}4.50", f"Cake{COLUMN}6.00")]


def test_words_of_a_row_are_one_text_when_they_stand_close() -> None:
    assert rows(line("open", 20, 50, 60), line("daily", 90, 51, 60)) == [("open daily",)]


def test_rows_are_in_order_whatever_order_they_were_found_in() -> None:
    found = [line(str(number), 20, 30 * number) for number in (3, 0, 2, 1)]
    assert rows(*found) == [("0", "1", "2", "3")]


def test_blocks_are_parted_when_there_is_a_gap() -> None:
    assert rows(line("title", 20, 20), line("foot", 20, 500)) == [("title",), ("foot",)]


def test_rows_hold_together_when_the_page_is_turned() -> None:
    turned = [line(text, left, top, turned=7) for text, left, top in TABLE]
    assert rows(*turned) == [(f"Tea{COLUMN}4.50", f"Cake{COLUMN}6.00")]


def test_text_that_runs_downwards_is_read_from_the_right() -> None:
    assert rows(line("左边", 100, 50, 20, 200), line("右边", 300, 50, 20, 200)) == [("右边", "左边")]


def test_a_block_knows_where_it_stands() -> None:
    (block,) = blocks((line("below right", 600, 500, 160),), 800, 600)
    assert (0.85, 0.85, 0.2) == (round(block.across, 2), round(block.down, 2), round(block.breadth, 2))


@given(
    st.lists(
        st.tuples(
            st.floats(-50, 900), st.floats(-50, 700), st.floats(0, 400), st.floats(0, 200), st.floats(-180, 180), st.text("abc", min_size=1)
        ),
        max_size=12,
    ),
    st.integers(1, 900),
    st.integers(1, 700),
)
def test_every_line_is_said_exactly_once_wherever_it_stands(
    found: list[tuple[float, float, float, float, float, str]], width: int, height: int
) -> None:
    lines = [line(f"{number}{text}", left, top, w, h, turned) for number, (left, top, w, h, turned, text) in enumerate(found)]
    told = blocks(lines, width, height)
    pieces = [piece for block in told for row in block.rows for piece in row.replace(COLUMN, " ").split()]
    assert Counter(line.text for line in lines) == Counter(pieces)
    assert all(0 <= block.across <= 1 and 0 <= block.down <= 1 and 0 <= block.breadth <= 1 for block in told)
