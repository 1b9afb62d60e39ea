"""Input files of batches: parts that lead back to their lines, blank lines, byte order marks, limits."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as some

from qwenbox.jobs import lines

CONFIG = lines.LinesConfig(most_lines=1_000, line_limit_bytes=400)
CHAT = "/v1/chat/completions"


def line(number: int) -> bytes:
    return json.dumps({"custom_id": str(number), "method": "POST", "url": CHAT, "body": {"model": "m"}}).encode()


@given(blanks=some.lists(some.sampled_from([b"", b"  ", b"\t"]), max_size=4), count=some.integers(1, 450), has_bom=some.booleans())
def test_parts_lead_back_to_their_lines(tmp_path_factory, blanks: list[bytes], count: int, has_bom: bool) -> None:
    path = Path(tmp_path_factory.mktemp("lines")) / "in.jsonl"
    texts = [line(number) for number in range(count)]
    rows = [text for number, line_ in enumerate(texts) for text in (blanks if number % 7 == 0 else []) + [line_]]
    path.write_bytes((b"\xef\xbb\xbf" if has_bom else b"") + b"\r\n".join(rows))

    checked = lines.check(path, CHAT, CONFIG, lambda _: True)

    assert (checked.faults, checked.total, checked.model) == ((), count, "m")
    assert [(number, texts[number]) for number in range(count)] == [row for part in checked.parts for row in lines.of_part(path, part, 400)]


@given(data=some.binary(max_size=900))
def test_any_bytes_have_a_verdict(tmp_path_factory, data: bytes) -> None:
    path = Path(tmp_path_factory.mktemp("bytes")) / "in.jsonl"
    path.write_bytes(data)
    assert lines.check(path, CHAT, CONFIG, lambda _: True).faults


def test_faults_are_told_with_their_lines_up_to_a_hundred(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"{\n" * 500)
    checked = lines.check(path, CHAT, CONFIG, lambda _: True)
    assert [*range(1, 101)] == [fault.line for fault in checked.faults]


def test_a_line_that_is_too_long_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(line(0) + b"\n" + b"x" * 401)
    (fault,) = lines.check(path, CHAT, CONFIG, lambda _: True).faults
    assert ("line_too_long", 2) == (fault.code, fault.line)
