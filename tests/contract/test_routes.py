"""Routes of all dialects over HTTP: those no SDK of today asks for, and that what one account has is nobody else's."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

import boxes
import wire
from boxes import Box
from qwenbox.dialects.base import Dialect, Route, Verb
from qwenbox.dialects.registry import DIALECTS
from support import pictures
from support.admin_calls import TESTING, admin

SYNTHESIS = "/api/v1/services/aigc/text2image/image-synthesis"
CODE = "/api/v1/services/aigc/code-generation/generation"
EDITING = "/api/v1/services/aigc/image2image/image-synthesis"
PICTURE = f"data:image/png;base64,{base64.b64encode(pictures.drawn()).decode()}"
AS_TASK = {"x-dashscope-async": "enable"}
FORM = {"content-type": "multipart/form-data; boundary=cut"}
BATCH_LINE = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": wire.compatible()}


@pytest.fixture(scope="module")
def shared_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A box with two accounts."""
    with boxes.serve(tmp_path_factory.mktemp("two"), environment=TESTING) as running:
        yield running


@pytest.fixture(scope="module")
def other_key(shared_box: Box) -> str:
    """The second account's."""
    assert admin(shared_box, "POST", "/accounts", {"name": "other"}).status == 201
    return admin(shared_box, "POST", "/keys", {"account": "other", "name": "k"}).json["secret"]


def test_code_generation_answers_a_chat(box: Box) -> None:
    heard, chat = (wire.post(box, path, wire.native({"seed": 1})) for path in (CODE, wire.NATIVE_CHAT))
    assert (200, chat.json["output"]) == (heard.status, heard.json["output"])


def test_pictures_to_draw_from_become_a_task(box: Box) -> None:
    body = {"model": "wanx2.1-imageedit", "input": {"prompt": "a", "function": "doodle", "base_image_url": PICTURE}}
    heard = wire.post(box, EDITING, body, headers=AS_TASK)
    assert (200, "PENDING") == (heard.status, heard.json["output"]["task_status"])


def made(box: Box) -> dict[Verb, str]:
    """What the box's first account has: ids by the verbs that take them."""
    line = json.dumps(BATCH_LINE).encode()
    parts = [b'name="purpose"\r\n\r\nbatch', b'name="file"; filename="a"\r\n\r\n' + line]
    form = b"".join(b"--cut\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--cut--\r\n"
    file = _id(wire.post(box, "/compatible-mode/v1/files", form, headers=FORM))
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = _id(wire.post(box, "/compatible-mode/v1/batches", asked))
    response = _id(wire.post(box, wire.RESPONSES, wire.responses()))
    drawn = {"model": "wan2.2-t2i-flash", "input": {"prompt": "a cat"}, "parameters": {"size": "512*512", "n": 1}}
    task = wire.post(box, SYNTHESIS, drawn, headers=AS_TASK).json["output"]["task_id"]
    of_files = dict.fromkeys((Verb.GET_FILE, Verb.FILE_CONTENT, Verb.DELETE_FILE), file)
    of_responses = dict.fromkeys((Verb.GET_RESPONSE, Verb.RESPONSE_INPUT, Verb.DELETE_RESPONSE), response)
    return {
        **of_files,
        **of_responses,
        **dict.fromkeys((Verb.GET_BATCH, Verb.CANCEL_BATCH), batch),
        **dict.fromkeys((Verb.GET_TASK, Verb.CANCEL_TASK), task),
    }


def _id(heard: wire.Heard) -> str:
    assert heard.status == 200, heard.body
    return heard.json["id"]


def _asked(box: Box, dialect: Dialect, route: Route, named: str, key: str) -> tuple[int, Any]:
    heard = wire.call(box, route.method, f"{dialect.prefixes[0]}{route.path.replace('{id}', named)}", key=key)
    if heard.headers["content-type"] != "application/json":
        return heard.status, heard.body
    # The request's own id, and the name of what it asked for, are no news.
    said = heard.body.replace(heard.headers["x-request-id"].encode(), b"").replace(named.encode(), b"")
    return heard.status, json.loads(said)


def test_what_another_account_has_is_as_if_it_were_not_there(shared_box: Box, other_key: str) -> None:
    ids = made(shared_box)
    routes = [(dialect, route) for dialect in DIALECTS for route in dialect.routes if "{id}" in route.path]
    assert {route.verb for _, route in routes} == set(ids)
    # Deletions last: else their owner's look would find nothing either.
    routes.sort(key=lambda entry: entry[1].method == "DELETE")

    for dialect, route in routes:
        named = ids[route.verb]
        unknown = named[:-6] + ("000000" if not named.endswith("000000") else "111111")
        theirs = _asked(shared_box, dialect, route, named, other_key)
        assert theirs == _asked(shared_box, dialect, route, unknown, other_key), (dialect.name, route)
        assert theirs[0] in (400, 404) or theirs[1]["output"]["task_status"] == "UNKNOWN"
    for dialect, route in routes:
        if route.method == "GET":
            status, told = _asked(shared_box, dialect, route, ids[route.verb], "")
            assert status == 200
            assert route.verb is not Verb.GET_TASK or told["output"]["task_status"] != "UNKNOWN"
    for path in ("/api/v1/files", "/api/v1/tasks", "/compatible-mode/v1/files", "/compatible-mode/v1/batches"):
        listed = wire.call(shared_box, "GET", path, key=other_key)
        assert listed.status == 200
        assert not [named for named in ids.values() if named.encode() in listed.body], path
