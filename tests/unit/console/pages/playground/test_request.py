"""What a visitor has set and said becomes one request; what is wrong with it is told in words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenbox.console.pages.playground.code import file_name
from qwenbox.console.pages.playground.request import Call, Picture, Question, Reply, Wishes, Wrong, body, count_body, schema, tools
from qwenbox.console.texts import Texts

BARE = Wishes(model="m")
SCHEMA = {"title": "person", "type": "object", "properties": {"age": {"type": "integer"}}}


def test_what_is_not_set_is_not_sent() -> None:
    assert {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    } == body(BARE, [Question(text="hi")])


def test_a_budget_goes_only_where_thinking_is_not_off() -> None:
    assert 9 == body(Wishes(model="m", thinking_budget=9), [])["thinking_budget"]
    assert "thinking_budget" not in body(Wishes(model="m", thinking_budget=9, enable_thinking=False), [])


def test_a_schema_is_named_by_its_title() -> None:
    asked = body(Wishes(model="m", format="json_schema", schema=json.dumps(SCHEMA)), [])
    assert {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}} == asked["response_format"]
    named = body(Wishes(model="m", format="json_schema", schema='{"title": "no name!"}'), [])
    assert named["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": {"title": "no name!"}, "strict": True},
    }


def test_tools_come_bare_or_as_the_api_takes_them() -> None:
    whole = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
    assert [whole] == tools(json.dumps([whole])) == tools(json.dumps(whole["function"]))
    assert [{"type": "function", "function": {"name": "g"}}] == tools('{"name": "g"}')


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ('{"a":\n 1,\n}', "This is no JSON: line 3, trailing comma in object."),
        ("", "This is no JSON: line 1, Input data was truncated."),
        ("[1]", 'A JSON schema is an object: {"type": "object", …}'),
        (
            '{"type": "nonsense"}',
            "This is no JSON schema: \"nonsense\" is not valid under any of the schemas listed in the 'anyOf' keyword",
        ),
    ],
)
def test_what_is_wrong_with_a_schema_is_told(typed: str, told: str) -> None:
    with pytest.raises(Wrong) as wrong:
        schema(typed)
    assert told == str(wrong.value) == Texts("en")(wrong.value.told, **wrong.value.values)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("[]", 'Tools are a list: [{"name": …, "description": …, "parameters": …}]'),
        ("[1]", "Tool 1 is no object."),
        ('[{"name": "f"}, {"name": "two words"}]', "Tool 2 needs a name of letters, digits, _ and -."),
        ('[{"name": "f", "parameters": 3}]', "The parameters of f are no JSON schema."),
    ],
)
def test_what_is_wrong_with_tools_is_told(typed: str, told: str) -> None:
    with pytest.raises(Wrong) as wrong:
        tools(typed)
    assert told == str(wrong.value)


@given(st.text())
def test_whatever_is_typed_is_json_of_that_kind_or_told(typed: str) -> None:
    for read in (schema, tools):
        try:
            read(typed)
        except Wrong as wrong:
            for language in ("en", "zh-CN"):
                assert Texts(language)(wrong.told, **wrong.values)


def test_a_count_asks_for_the_same_prompt_without_its_pictures() -> None:
    asked = body(
        Wishes(model="m", system="be brief", tools='[{"name": "f"}]'),
        [
            Question(text="look", pictures=(Picture(name="a.png", media_type="image/png", data=b"1"),)),
            Reply(
                text="calling", calls=[Call(id="c", name="f", arguments='{"x": 1}', result="2"), Call(id="d", name="f", arguments="broken")]
            ),
        ],
    )
    assert {
        "model": "m",
        "system": "be brief",
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "look"},
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "calling"},
                    {"type": "tool_use", "id": "c", "name": "f", "input": {"x": 1}},
                    {"type": "tool_use", "id": "d", "name": "f", "input": {}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "2"}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "d", "content": ""}]},
        ],
    } == json.loads(count_body(asked))


@given(st.text(max_size=80))
def test_a_pictures_file_has_a_name_that_nothing_stumbles_over(name: str) -> None:
    taken: list[str] = []
    for _ in range(3):
        taken.append(file_name(name, taken))
    assert 3 == len(set(taken))
    for one in taken:
        assert one and one.isascii() and one[0] not in ".-/ " and not set(one) & set("/\\'\"$`\n")
