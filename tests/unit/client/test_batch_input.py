"""Inputs of `qwenbox batch run`: every form becomes the same requests, and what is wrong is told by its line."""

import csv
import io
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from qwenbox.client.batch_input import COMPLETIONS, EMBEDDINGS, Asked, BadInput, Reading, Recipe, Shape, sniffed

TEXT = some.text(some.characters(exclude_categories=("Cs",)), max_size=40)
# What a line of text keeps: no line feed in it, no carriage return or mark at its ends, and something to see.
LINE = TEXT.map(lambda text: text.replace("\n", "").strip("\r").removeprefix("\ufeff")).filter(lambda text: bool(text.strip()))


def asked(data: bytes, shape: Shape, encoding: str = "utf-8", **recipe: Any) -> list[Asked]:
    return list(Reading(io.BytesIO(data), shape, encoding, Recipe(model="m", **recipe)))


def bodies(data: str | bytes, shape: Shape, **recipe: Any) -> list[dict[str, Any]]:
    return [msgspec.json.decode(each.body) for each in asked(data.encode() if isinstance(data, str) else data, shape, **recipe)]


def prompts(data: str | bytes, shape: Shape, **recipe: Any) -> list[str]:
    return [body["messages"][-1]["content"] for body in bodies(data, shape, **recipe)]


def faults(data: str | bytes, shape: Shape, **recipe: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        asked(data.encode() if isinstance(data, str) else data, shape, **recipe)
    return [str(fault) for fault in caught.value.faults]


@given(some.lists(LINE, min_size=1, max_size=8), some.sampled_from(["\n", "\r\n", "\n\n  \n"]), some.booleans())
def test_lines_of_text_are_the_prompts(lines: list[str], end: str, has_mark: bool) -> None:
    data = b"\xef\xbb\xbf" * has_mark + end.join(lines).encode()
    assert lines == prompts(data, Shape.TEXT)


@given(some.lists(some.tuples(TEXT, TEXT.filter(lambda text: bool(text.strip()))), min_size=1, max_size=8), some.sampled_from([",", "\t"]))
def test_a_table_written_by_anyone_is_read_back(rows: list[tuple[str, str]], delimiter: str) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter).writerows([("name", "text"), *rows])
    found = asked(written.getvalue().encode(), Shape.TSV if delimiter == "\t" else Shape.CSV, column="text")
    assert rows == [each.cells for each in found]
    assert [text for _, text in rows] == [msgspec.json.decode(each.body)["messages"][0]["content"] for each in found]


JSON = some.one_of(TEXT, some.integers(), some.floats(allow_nan=False, allow_infinity=False), some.none(), some.lists(TEXT, max_size=2))


@given(some.lists(some.dictionaries(TEXT, JSON, max_size=2), max_size=3))
def test_bodies_go_out_as_they_came_in(extras: list[dict[str, Any]]) -> None:
    own = {"model": "own", "messages": [{"role": "user", "content": "x"}]}
    sent = [{**extra, **own, "custom_id": f"n{n}"} for n, extra in enumerate(extras)]
    data = "".join(json.dumps(each) + "\n" for each in sent)
    if sent:
        found = asked(data.encode(), Shape.JSONL)
        assert [f"n{n}" for n in range(len(sent))] == [each.custom_id for each in found]
        assert sent == [{**msgspec.json.decode(each.body), "custom_id": each.custom_id} for each in found]


@given(some.binary(max_size=200), some.sampled_from(list(Shape)), some.sampled_from(["utf-8", "gb18030", "utf-16"]))
def test_any_bytes_are_requests_or_refused(data: bytes, shape: Shape, encoding: str) -> None:
    try:
        found = asked(data, shape, encoding)
    except BadInput as error:
        assert error.faults
    else:
        assert found
        assert len({each.custom_id for each in found}) == len(found)


def test_full_requests_keep_their_ids_urls_and_bodies() -> None:
    line: dict[str, Any] = {"custom_id": "x-1", "method": "POST", "url": "/v1/completions", "body": {"model": "q", "prompt": "a", "n": 2}}
    (found,) = asked(json.dumps(line).encode(), Shape.JSONL, temperature=0.5)
    assert ("x-1", COMPLETIONS, "q") == (found.custom_id, found.endpoint, found.model)
    assert {**line, "body": {"temperature": 0.5, **line["body"]}} == msgspec.json.decode(found.wire())


def test_options_fill_in_what_a_line_leaves_open() -> None:
    recipe: dict[str, Any] = {"system": "S", "temperature": 0, "max_tokens": 7, "is_json": True, "extra": {"seed": msgspec.Raw(b"3")}}
    lines = (
        '{"prompt": "a"}',
        '{"messages": [], "temperature": 1}',
        '{"prompt": "b", "system": "own", "model": "big"}',
        '"plain"',
        '[{"role": "user", "content": "c"}]',
    )
    one, two, three, four, five = bodies("\n".join(lines), Shape.JSONL, **recipe)
    common = {"max_tokens": 7, "response_format": {"type": "json_object"}, "seed": 3}
    said = [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}]
    assert {**common, "model": "m", "temperature": 0, "messages": said} == one
    assert {**common, "model": "m", "temperature": 1, "messages": []} == two
    assert ("big", "own") == (three["model"], three["messages"][0]["content"])
    assert ("plain", "c") == (four["messages"][1]["content"], five["messages"][0]["content"])


def test_templates_take_columns_and_fields() -> None:
    recipe = {"template": "Say {{x}} of {text} to {name}"}
    assert ["Say {x} of {a} to B"] == prompts("name,text\nB,{a}\n", Shape.CSV, **recipe)
    assert ["Say {x} of [1, 2] to B"] == prompts('{"name": "B", "text": [1, 2]}', Shape.JSONL, **recipe)
    assert ["<one>", "<two>"] == prompts("one\ntwo", Shape.TEXT, template="<{text}>")


def test_the_prompt_column_is_found() -> None:
    assert ["p"] == prompts("id,prompt\n1,p\n", Shape.CSV)
    assert ["p"] == prompts("Frage\np\n", Shape.CSV)
    assert ["which column is the prompt?"] == [fault.removeprefix("line 1: ")[:27] for fault in faults("a,b\n1,2\n", Shape.CSV)]


def test_other_endpoints_get_their_own_bodies() -> None:
    assert [{"model": "m", "prompt": "a"}] == bodies("a", Shape.TEXT, endpoint=COMPLETIONS)
    assert [{"model": "m", "input": "a"}] == bodies("a", Shape.TEXT, endpoint=EMBEDDINGS)
    assert [{"model": "m", "input": ["a", "b"]}] == bodies('{"input": ["a", "b"]}', Shape.JSONL, endpoint=EMBEDDINGS)


def test_chinese_encodings_are_read_and_a_wrong_one_is_told() -> None:
    data = "文本\n你好，世界\n".encode("gb18030")
    assert ["你好，世界"] == [msgspec.json.decode(each.body)["messages"][0]["content"] for each in asked(data, Shape.CSV, "gb18030")]
    (fault,) = faults(data, Shape.CSV)
    assert "near line 1" in fault and "no utf-8 text" in fault


@pytest.mark.parametrize(
    ("data", "shape", "said"),
    [
        ("", Shape.TEXT, "the input has no lines"),
        ("\n \n", Shape.JSONL, "the input has no lines"),
        ("text\n", Shape.CSV, "the input has no lines"),
        ('{"prompt": "a"}\n{broken', Shape.JSONL, "line 2: this is no JSON"),
        ('{"custom_id": "1", "prompt": "a"}\n{"custom_id": 1, "prompt": "a"}', Shape.JSONL, "line 2: custom_id '1' is in line 1, too"),
        ('{"custom_id": "", "prompt": "a"}', Shape.JSONL, "line 1: custom_id has 1 to 256 characters"),
        ('{"id": 7}', Shape.JSONL, 'line 1: neither "body"'),
        ('{"prompt": 7}', Shape.JSONL, "line 1: prompt is no text"),
        ('{"prompt": " "}', Shape.JSONL, "line 1: the prompt is empty"),
        ('{"body": [], "url": "/v1/x"}', Shape.JSONL, "line 1: body is no JSON object"),
        ('{"body": {}, "method": "GET"}', Shape.JSONL, "line 1: method is 'GET'"),
        ("a,a\n1,2\n", Shape.CSV, "line 1: two columns are called 'a'"),
        ('text\n"a\nb",c\n', Shape.CSV, "line 2: 2 cells in a table of 1 columns"),
        ('text\n"a', Shape.CSV, "unexpected end of data"),
        ("text,x\n,2\n", Shape.CSV, "line 2: the prompt is empty"),
        ('{"messages": "' + "x" * 6_291_456 + '"}', Shape.JSONL, "line 1: the request is longer than 6 MB"),
    ],
)
def test_what_is_wrong_is_told_by_its_line(data: str, shape: Shape, said: str) -> None:
    (fault,) = faults(data, shape)
    assert said in fault


def test_a_line_without_a_model_is_refused_and_faults_have_an_end() -> None:
    with pytest.raises(BadInput) as caught:
        list(Reading(io.BytesIO(b"a\n" * 30), Shape.TEXT, "utf-8", Recipe()))
    assert ("line 20: it names no model", "model") == (str(caught.value.faults[19]), caught.value.faults[19].missing)
    assert 21 == len(caught.value.faults)


def test_shapes_are_known_by_name_or_by_their_first_bytes() -> None:
    assert [Shape.CSV, Shape.TSV, Shape.JSONL, Shape.TEXT] == [sniffed(name, b"") for name in ("a.CSV", "a.tsv", "a.b.ndjson", "a.txt")]
    assert [Shape.JSONL, Shape.TEXT] == [sniffed("", head) for head in (b'\xef\xbb\xbf\n{"a": 1}', b"{x} is not JSON")]
