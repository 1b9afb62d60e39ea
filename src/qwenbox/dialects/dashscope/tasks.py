"""This is where tasks are spoken about natively: submitted, queried, listed, cancelled (wire reference 6; times are Beijing's)."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone

import msgspec
from msgspec import UNSET, UnsetType

from qwenbox.dialects.base import Head, Page, WireRequest
from qwenbox.dialects.dashscope import body, errors, images
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.job import Task, TaskPicture, TasksAsked, TasksPage, TaskState

BEIJING = timezone(timedelta(hours=8))
REGION = "cn-beijing"

_JSON = Head(status=200, media_type="application/json")
_MOST_LISTED, _DEFAULT_LISTED, _LAST_PAGE = 100, 10, 1_000_000
# What the service shows of an id that it does not know.
_SHOWN_CHARACTERS = 128
_TIME_DIGITS = 14
_encoder = msgspec.json.Encoder()


class _Submitted(msgspec.Struct, frozen=True, kw_only=True):
    task_status: str
    task_id: str


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    task_id: str
    task_status: str
    submit_time: str | UnsetType = UNSET
    scheduled_time: str | UnsetType = UNSET
    end_time: str | UnsetType = UNSET
    finished: bool | UnsetType = UNSET
    results: list[images.WireResult] | UnsetType = UNSET
    choices: list[images.WireChoice] | UnsetType = UNSET
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    task_metrics: images.Metrics | UnsetType = UNSET


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    request_id: str
    output: _Submitted | _Output
    usage: images.ImageUsage | UnsetType = UNSET


class _Listed(msgspec.Struct, frozen=True, kw_only=True):
    """Times are milliseconds here."""

    api_key_id: str
    caller_parent_id: str
    caller_uid: str
    gmt_create: int
    start_time: int | None
    end_time: int | None
    model_name: str
    region: str
    request_id: str
    status: str
    task_id: str
    user_api_unique_key: str


class _ListedJob(msgspec.Struct, frozen=True, kw_only=True):
    """The same task as the 2.0 client's `Job` has it: the words and times of a query."""

    task_id: str
    task_status: str
    model_name: str
    submit_time: str | UnsetType
    scheduled_time: str | UnsetType
    end_time: str | UnsetType


class _List(msgspec.Struct, frozen=True, kw_only=True):
    """The 1.x SDK reads `data`, the 2.0 client `tasks`."""

    total: int
    data: list[_Listed]
    tasks: list[_ListedJob]
    total_page: int
    page_no: int
    page_size: int
    request_id: str


class _Done(msgspec.Struct, frozen=True):
    request_id: str


def submitted(task: Task, request_id: str) -> Page:
    output = _Submitted(task_status=task.state.value, task_id=task.id)
    return _page(_Told(request_id=request_id, output=output))


def one(task: Task | None, task_id: str, request_id: str, link: Callable[[TaskPicture], str]) -> Page:
    """task: None where there is none, which is no error on this wire. link: where a picture is fetched."""
    if task is None:
        shown = task_id[:_SHOWN_CHARACTERS].encode("utf-8", "replace").decode()
        return _page(_Told(request_id=request_id, output=_Output(task_id=shown, task_status=TaskState.UNKNOWN.value)))
    is_older = images.is_synthesis(task.endpoint)
    is_made = task.state is TaskState.SUCCEEDED
    fault = None if task.fault is None else errors.wire(ApiError(task.fault.kind, task.fault.message, param=task.fault.param))
    failed = task.total if fault is not None else 0
    output = _Output(
        task_id=task.id,
        task_status=task.state.value,
        submit_time=_local(task.submitted_at),
        scheduled_time=_local(task.scheduled_at),
        end_time=_local(task.ended_at),
        finished=True if is_made and not is_older else UNSET,
        results=[_result(task, picture, link) for picture in task.pictures] if is_made and is_older else UNSET,
        choices=images.choices([link(picture) for picture in task.pictures]) if is_made and not is_older else UNSET,
        code=UNSET if fault is None else fault.code,
        message=UNSET if fault is None else fault.text,
        task_metrics=images.Metrics(TOTAL=task.total, SUCCEEDED=task.done, FAILED=failed),
    )
    return _page(_Told(request_id=request_id, output=output, usage=_usage(task, is_older=is_older) if is_made else UNSET))


def _usage(task: Task, *, is_older: bool) -> images.ImageUsage:
    if is_older or not task.pictures:
        return images.ImageUsage(image_count=len(task.pictures))
    return images.ImageUsage(image_count=len(task.pictures), width=task.pictures[0].width, height=task.pictures[0].height)


def _result(task: Task, picture: TaskPicture, link: Callable[[TaskPicture], str]) -> images.WireResult:
    extended = {"orig_prompt": task.prompt, "actual_prompt": picture.prompt} if picture.prompt else {}
    return images.WireResult(url=link(picture), **extended)


def asked(request: WireRequest) -> TasksAsked:
    """Which part of the list. Raises ApiError(INVALID_REQUEST) for numbers, times and states that are none."""
    query = request.query
    return TasksAsked(
        page_no=number(query, "page_no", 1, _LAST_PAGE),
        page_size=number(query, "page_size", _DEFAULT_LISTED, _MOST_LISTED),
        submitted_after=_moment(query, "start_time"),
        submitted_before=_moment(query, "end_time"),
        model=_name(query, "model_name"),
        state=_state(query.get("status", "")),
        key_id=_name(query, "api_key_id"),
    )


def page(found: TasksPage, asked: TasksAsked, request_id: str) -> Page:
    return _page(
        _List(
            total=found.total,
            data=[_listed(task) for task in found.tasks],
            tasks=[_job(task) for task in found.tasks],
            total_page=math.ceil(found.total / asked.page_size),
            page_no=asked.page_no,
            page_size=asked.page_size,
            request_id=request_id,
        )
    )


def cancelled(request_id: str) -> Page:
    return _page(_Done(request_id))


def _listed(task: Task) -> _Listed:
    return _Listed(
        api_key_id=task.key_id,
        caller_parent_id=task.account_id,
        caller_uid=task.account_id,
        gmt_create=_milliseconds(task.submitted_at) or 0,
        start_time=_milliseconds(task.scheduled_at),
        end_time=_milliseconds(task.ended_at),
        model_name=task.model,
        region=REGION,
        request_id=task.request_id,
        status=task.state.value,
        task_id=task.id,
        user_api_unique_key=f"apikey:v1:{task.endpoint.removeprefix('/services/').replace('/', ':')}:{task.model}",
    )


def _job(task: Task) -> _ListedJob:
    return _ListedJob(
        task_id=task.id,
        task_status=task.state.value,
        model_name=task.model,
        submit_time=_local(task.submitted_at),
        scheduled_time=_local(task.scheduled_at),
        end_time=_local(task.ended_at),
    )


def _local(at: float | None) -> str | UnsetType:
    if at is None:
        return UNSET
    return datetime.fromtimestamp(at, UTC).astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _milliseconds(at: float | None) -> int | None:
    return None if at is None else int(at * 1000)


def number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 1 to `most` of a query. Raises ApiError(INVALID_REQUEST) naming it."""
    text = query.get(name, "")
    if not text:
        return default
    # isdecimal alone admits digits of other scripts.
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) else 0
    if not 1 <= number <= most:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"Range of {name} should be [1, {most}]", param=name)
    return number


def _moment(query: Mapping[str, str], name: str) -> float | None:
    """Digits from the year to the second, as many as are said, e.g. 20230420 or 20230420093000."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        if not (text.isascii() and text.isdecimal() and 8 <= len(text) <= _TIME_DIGITS):
            raise ValueError(text)
        return datetime.strptime(text.ljust(_TIME_DIGITS, "0"), "%Y%m%d%H%M%S").replace(tzinfo=BEIJING).timestamp()
    except (ValueError, OverflowError) as error:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"{name} must be a time of Beijing such as 20230420093000", param=name) from error


def _state(text: str) -> TaskState | None:
    if not text:
        return None
    try:
        return TaskState(text.upper())
    except ValueError as error:
        known = ", ".join(TaskState)
        raise ApiError(ErrorKind.INVALID_REQUEST, f"status must be one of {known}", param="status") from error


def _name(query: Mapping[str, str], name: str) -> str:
    """What no name can be is not asked of a database, which may refuse the very characters."""
    text = query.get(name, "")
    if len(text) > _SHOWN_CHARACTERS or not text.isascii() or not text.isprintable():
        raise ApiError(ErrorKind.INVALID_REQUEST, body.INVALID.format(name), param=name)
    return text


def _page(value: msgspec.Struct) -> Page:
    return Page(head=_JSON, body=_encoder.encode(value))
