"""Pictures and tasks on the native wire: what is read, what is refused, what is told."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenbox.dialects.base import ParsedImage, WireRequest
from qwenbox.dialects.dashscope import drawing, errors, images, tasks
from qwenbox.terms.caller import Compat
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.image import SERVICE_INPUT, SERVICE_PARAMETERS, ImageRequest, media_type
from qwenbox.terms.job import Task, TaskFault, TaskPicture, TaskState

ASYNC = {"x-dashscope-async": "enable"}
FULL: dict[str, Any] = {
    "model": "wanx2.1-imageedit",
    "input": {
        "prompt": "帽子",
        "negative_prompt": "狗",
        "base_image_url": "https://x/a.png",
        "images": ["https://x/b.png"],
        "function": "doodle",
    },
    "parameters": {
        "size": "720*1280",
        "n": 2,
        "seed": 9,
        "style": "<sketch>",
        "watermark": True,
        "prompt_extend": False,
        "ref_mode": "repaint",
    },
}
values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.text(max_size=3), max_size=2), st.just({})
)


def request(path: str, body: Any, **headers: str) -> WireRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WireRequest(id="r", method="POST", path=f"/api/v1{path}", received_at=0.0, headers=headers, body=raw)


def parsed(path: str, body: Any, **headers: str) -> ImageRequest:
    return images.parse(request(path, body, **headers), Compat.DOCUMENTED).request


def refused(path: str, body: Any, **headers: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parsed(path, body, **headers)
    return caught.value


def test_a_whole_synthesis_is_read():
    read = parsed(images.EDITING, FULL)
    assert (read.prompt, read.negative_prompt, read.width, read.height, read.n, read.seed) == ("帽子", "狗", 720, 1280, 2, 9)
    assert [image.url for image in read.images] == ["https://x/a.png", "https://x/b.png"]
    assert (read.style, read.has_watermark, read.is_prompt_extended) == ("<sketch>", True, False)
    assert read.extensions == {SERVICE_INPUT: b'{"function":"doodle"}', SERVICE_PARAMETERS: b'{"ref_mode":"repaint"}'}


def test_no_style_is_no_style():
    body = {"model": "m", "input": {"prompt": "p"}, "parameters": {"style": "<auto>", "foo": 1}}
    assert (parsed(images.SYNTHESIS, body).style, parsed(images.SYNTHESIS, body).extensions) == ("", {})


def test_messages_are_one_turn():
    items = [{"image": "https://x/a.png"}, {"text": "a"}, {"text": "b"}]
    body = {"model": "m", "input": {"messages": [{"role": "user", "content": items}]}, "parameters": {"negative_prompt": "c"}}
    read = parsed(images.GENERATION, body)
    assert (read.prompt, read.negative_prompt, [image.url for image in read.images]) == ("ab", "c", ["https://x/a.png"])
    twice = {"model": "m", "input": {"messages": [{"role": "user", "content": items}] * 2}}
    assert refused(images.GENERATION, twice).message == images.ONE_TURN
    assert "modal" in refused(images.GENERATION, {"model": "m", "input": {"messages": [{"content": [{"video": "x"}]}]}}).message


@pytest.mark.parametrize(
    ("path", "headers", "text"),
    [(images.GENERATION, ASYNC, images.NO_TASKS), (images.GENERATION_TASKS, {}, images.ONLY_TASKS)],
)
def test_paths_know_tasks_or_calls(path: str, headers: dict[str, str], text: str):
    error = refused(path, {}, **headers)
    entry = errors.wire(error)
    assert (error.kind, entry.status, entry.code, entry.text) == (ErrorKind.FORBIDDEN, 403, "AccessDenied", text)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"input": {"prompt": "p"}}, "BadRequest.EmptyModel"),
        ({"model": "m"}, "BadRequest.EmptyInput"),
        ({"model": "m", "input": "secret"}, "BadRequest.IllegalInput"),
        ({"model": "m", "input": {"prompt": "  "}}, "InvalidParameter"),
        ({"model": "m", "input": {"prompt": "p"}, "parameters": {"size": "1024"}}, "InvalidParameter"),
        ({"model": "m", "input": {"prompt": "p"}, "parameters": {"size": "0*512"}}, "InvalidParameter"),
        ({"model": "m", "input": {"prompt": "p"}, "parameters": {"seed": 2**63}}, "InvalidParameter"),
        (b"{", "InvalidParameter"),
        (b"\xff", "InvalidParameter"),
    ],
)
def test_what_is_wrong_is_said_as_the_service_does(body: Any, code: str):
    entry = errors.wire(refused(images.SYNTHESIS, body, **ASYNC))
    assert (entry.status, entry.code) == (400, code)


@settings(max_examples=300, deadline=None)
@given(
    path=st.sampled_from([images.SYNTHESIS, images.EDITING, images.GENERATION, images.GENERATION_TASKS]),
    place=st.sampled_from(
        [("input", name) for name in (*FULL["input"], "messages")] + [("parameters", name) for name in FULL["parameters"]]
    ),
    value=values,
    is_task=st.booleans(),
)
def test_one_wrong_field_is_an_error_or_a_request(path: str, place: tuple[str, str], value: Any, is_task: bool):
    body = {**FULL, place[0]: {**FULL[place[0]], place[1]: value}}
    try:
        read = images.parse(request(path, body, **(ASYNC if is_task else {})), Compat.STRICT)
    except ApiError as error:
        assert errors.wire(error).status in (400, 403)
    else:
        assert isinstance(read, ParsedImage) and read.request.prompt.strip()


@given(st.binary(max_size=40))
def test_any_bytes_name_a_model_or_none(body: bytes):
    assert isinstance(images.model_of(request(images.GENERATION, body)), str)


def task(**changed: Any) -> Task:
    known: dict[str, Any] = {
        "id": "t",
        "account_id": "a",
        "key_id": "k",
        "request_id": "r",
        "endpoint": images.SYNTHESIS,
        "model": "wanx-v1",
        "prompt": "帽子",
        "state": TaskState.SUCCEEDED,
        "submitted_at": 1709285904.817,
        "scheduled_at": 1709285904.831,
        "ended_at": 1709285935.565,
        "total": 1,
        "done": 1,
        "pictures": (TaskPicture(url="https://x/1.png", width=8, height=9, prompt="eine Katze"),),
    }
    return Task(**{**known, **changed})


def told(task: Task | None) -> dict[str, Any]:
    return json.loads(tasks.one(task, "t", "q", lambda picture: picture.url).body)


def test_a_task_is_told_in_beijings_time():
    assert told(task()) == {
        "request_id": "q",
        "output": {
            "task_id": "t",
            "task_status": "SUCCEEDED",
            "submit_time": "2024-03-01 17:38:24.817",
            "scheduled_time": "2024-03-01 17:38:24.831",
            "end_time": "2024-03-01 17:38:55.565",
            "results": [{"url": "https://x/1.png", "orig_prompt": "帽子", "actual_prompt": "eine Katze"}],
            "task_metrics": {"TOTAL": 1, "SUCCEEDED": 1, "FAILED": 0},
        },
        "usage": {"image_count": 1},
    }


def test_other_ends_are_told():
    fault = TaskFault(kind=ErrorKind.CONTENT_REJECTED, message="")
    failed = told(task(state=TaskState.FAILED, fault=fault, pictures=(), done=0))["output"]
    assert (failed["code"], failed["task_metrics"]) == ("DataInspectionFailed", {"TOTAL": 1, "SUCCEEDED": 0, "FAILED": 1})
    assert told(None) == {"request_id": "q", "output": {"task_id": "t", "task_status": "UNKNOWN"}}
    newer = told(task(endpoint=images.GENERATION_TASKS))
    assert newer["output"]["choices"][0]["message"]["content"] == [{"image": "https://x/1.png", "type": "image"}]
    assert newer["usage"] == {"image_count": 1, "width": 8, "height": 9}
    pending = told(task(state=TaskState.PENDING, scheduled_at=None, ended_at=None, pictures=()))["output"]
    assert "scheduled_time" not in pending and "results" not in pending


@given(
    st.dictionaries(
        st.sampled_from(["page_no", "page_size", "start_time", "end_time", "status", "model_name", "api_key_id"]), st.text(max_size=16)
    )
)
def test_any_query_is_a_list_or_an_error(query: dict[str, str]):
    try:
        asked = tasks.asked(WireRequest(id="r", method="GET", path="/api/v1/tasks", received_at=0.0, query=query))
    except ApiError as error:
        assert error.kind is ErrorKind.INVALID_REQUEST
    else:
        assert 1 <= asked.page_size <= 100


def test_times_of_a_list_are_beijings():
    query = {"start_time": "20240301173824", "end_time": "20240302"}
    asked = tasks.asked(WireRequest(id="r", method="GET", path="/api/v1/tasks", received_at=0.0, query=query))
    assert (asked.submitted_after, asked.submitted_before) == (1709285904.0, 1709308800.0)


@pytest.mark.parametrize("model", ["wan2.2-t2i-flash", "wanx-v1", "wanx2.1-imageedit", "wan2.6-t2i", "qwen-image"])
def test_what_is_spoken_is_what_was_read(model: str):
    asked = ImageRequest(
        model=model, prompt="帽子", negative_prompt="狗", n=2, width=512, height=640, seed=3, has_watermark=True, is_prompt_extended=True
    )
    path = drawing.path(asked, model)
    headers = {} if path == images.GENERATION else ASYNC
    assert parsed(path, drawing.speak(asked, model), **headers) == asked


@given(
    st.binary(max_size=60)
    | st.recursive(values, lambda inner: st.dictionaries(st.sampled_from(["output", "results", "url"]), inner)).map(
        lambda v: json.dumps(v).encode()
    )
)
def test_whatever_the_service_says_is_heard_or_an_error(body: bytes):
    try:
        drawing.hear(body)
    except ApiError as error:
        assert error.kind in (ErrorKind.ENGINE_FAILED, ErrorKind.INVALID_REQUEST, ErrorKind.CONTENT_REJECTED)


def test_a_picture_is_known_by_its_bytes():
    assert [media_type(data) for data in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF0000WEBPVP8 ")] == [
        "image/png",
        "image/jpeg",
        "image/webp",
    ]
    with pytest.raises(ValueError, match="no PNG"):
        media_type(b"<svg onload=alert(1)>")
