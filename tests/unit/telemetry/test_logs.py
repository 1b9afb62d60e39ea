"""The form of log lines."""

import logging

import msgspec
import pytest

from qwenbox.telemetry.logs import REQUEST_ID, JsonLines, TextLines, fields


def record(message: str = "went %s", extra: dict[str, object] | None = None) -> logging.LogRecord:
    return logging.getLogger("qwenbox.tests").makeRecord("qwenbox.tests", logging.WARNING, "here", 1, message, ("well",), None, extra=extra)


@pytest.fixture
def request_id():
    token = REQUEST_ID.set("0198-abc")
    yield "0198-abc"
    REQUEST_ID.reset(token)


def test_json_line_says_when_who_and_what(request_id: str) -> None:
    line = JsonLines(worker=2).format(record(extra=fields(model="qwen-plus", status=200)))
    told = msgspec.json.decode(line)
    at = told.pop("at")
    assert at.endswith("Z")
    assert {
        "level": "warning",
        "logger": "qwenbox.tests",
        "message": "went well",
        "worker": 2,
        "request_id": request_id,
        "model": "qwen-plus",
        "status": 200,
    } == told


def test_json_line_is_one_line_whatever_the_message() -> None:
    line = JsonLines().format(record("a\nb\u2028%s\x00"))
    assert "\n" not in line
    assert "a\nb\u2028well\x00" == msgspec.json.decode(line)["message"]


def test_json_line_holds_the_exception() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        failed = logging.getLogger("qwenbox.tests").makeRecord("q", logging.ERROR, "here", 1, "no", (), (type(error), error, None))
    assert "ValueError: broken" in msgspec.json.decode(JsonLines().format(failed))["exception"]


def test_text_line_ends_with_the_request_it_belongs_to(request_id: str) -> None:
    assert TextLines(worker=3).format(record()).endswith(f"WARNING [worker 3] qwenbox.tests: went well [{request_id}]")


def test_text_line_does_not_say_the_request_twice(request_id: str) -> None:
    assert 1 == TextLines().format(record(f"request {request_id} %s")).count(request_id)


def test_line_outside_of_calls_names_no_request() -> None:
    assert "request_id" not in msgspec.json.decode(JsonLines().format(record()))
    assert TextLines().format(record()).endswith("went well")
