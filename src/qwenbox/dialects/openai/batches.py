"""This is where batches are spoken about with OpenAI clients: what is asked for, batch objects, lines in and out. Wire reference 4.7."""

import re
from collections.abc import Mapping

import msgspec

from qwenbox.dialects.base import Page, WireRequest
from qwenbox.dialects.openai import fields, files, render
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.job import Batch as Job
from qwenbox.terms.job import BatchesPage, BatchFault, NewBatch, PageAsked

CHAT, COMPLETIONS, TEST = "/v1/chat/completions", "/v1/completions", "/v1/chat/ds-test"
EMBEDDINGS = "/v1/embeddings"
# What the lines of a batch may ask of this box.
ENDPOINTS = (CHAT, COMPLETIONS, EMBEDDINGS, TEST)

# The endpoint that tries out a client's own code: a fixed reply, asked of nobody, for nothing.
TEST_MODEL, TEST_LINES = "batch-test-model", 100

_HOUR_S = 3600.0
_SHORTEST_S, _LONGEST_S = 24 * _HOUR_S, 14 * 24 * _HOUR_S
_WINDOW = re.compile(r"([0-9]{1,4})([hd])")
_CALLBACK = "ds_batch_finish_callback"
_MOST_LISTED, _DEFAULT_LISTED = 100, 20
_ENCODER = msgspec.json.Encoder()


class NewBody(msgspec.Struct):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None


_NEW = msgspec.json.Decoder(NewBody)


class WireFaults(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: tuple[BatchFault, ...]


class WireCounts(msgspec.Struct, kw_only=True):
    total: int
    completed: int
    failed: int


class _Cached(msgspec.Struct):
    cached_tokens: int


class _Reasoning(msgspec.Struct):
    reasoning_tokens: int


class WireBatchUsage(msgspec.Struct, kw_only=True):
    """Of the lines that are done."""

    input_tokens: int
    input_tokens_details: _Cached
    output_tokens: int
    output_tokens_details: _Reasoning
    total_tokens: int


class WireCost(msgspec.Struct, kw_only=True):
    """Ours: what the lines that are done have cost, in millionths of the currency."""

    cost_micros: int
    currency: str


class WireBatch(msgspec.Struct, kw_only=True):
    """The service's fields in its order; the last three are beside them."""

    id: str
    object: str = "batch"
    endpoint: str
    errors: WireFaults | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: WireCounts
    metadata: dict[str, str] | None
    model: str | None
    usage: WireBatchUsage
    qwenbox: WireCost


class WireBatches(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[WireBatch]
    first_id: str | None
    last_id: str | None
    has_more: bool


def new(request: WireRequest) -> NewBatch:
    """Raises ApiError(INVALID_REQUEST) naming the field at fault."""
    return checked(fields.decode(_NEW, request.body))


def checked(body: NewBody) -> NewBatch:
    """Raises ApiError(INVALID_REQUEST) naming the field at fault."""
    if body.endpoint not in ENDPOINTS:
        raise fields.invalid(f"endpoint must be one of {', '.join(ENDPOINTS)}: {fields.quoted(body.endpoint)!r}", "endpoint")
    return NewBatch(
        input_file_id=body.input_file_id,
        endpoint=body.endpoint,
        window=body.completion_window,
        window_s=_window_s(body.completion_window),
        metadata=_metadata(body.metadata),
    )


def _window_s(text: str) -> float:
    match = _WINDOW.fullmatch(text)
    seconds_s = float(match[1]) * (_HOUR_S if match[2] == "h" else 24 * _HOUR_S) if match else 0.0
    if not _SHORTEST_S <= seconds_s <= _LONGEST_S:
        raise fields.invalid("completion_window is 24h to 336h, or 1d to 14d", "completion_window")
    return seconds_s


def _metadata(pairs: Mapping[str, str] | None) -> dict[str, str] | None:
    if pairs is None:
        return None
    if len(pairs) > 16 or any(len(name) > 64 or len(value) > 512 or "\0" in name + value for name, value in pairs.items()):
        raise fields.invalid("metadata has at most 16 pairs: names of 64 characters, values of 512", "metadata")
    if pairs.get(_CALLBACK):
        raise fields.invalid(f"{_CALLBACK} is not supported: this box calls nobody. Ask for the batch's status instead.", "metadata")
    return dict(pairs)


def asked(request: WireRequest) -> PageAsked:
    """Raises ApiError(INVALID_REQUEST) naming the parameter."""
    query = request.query
    return PageAsked(
        limit=files.limit(query.get("limit"), _DEFAULT_LISTED, _MOST_LISTED),
        after=query.get("after") or None,
        created_after=files.moment(query.get("create_after"), "create_after"),
        created_before=files.moment(query.get("create_before"), "create_before"),
        name=query.get("ds_name", ""),
        input_file_ids=_several(query.get("input_file_ids")),
        statuses=_several(query.get("status")),
    )


def _several(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def one(job: Job) -> Page:
    return Page(head=render.JSON_HEAD, body=_ENCODER.encode(_wire(job)))


def page(found: BatchesPage) -> Page:
    data = [_wire(job) for job in found.batches]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return Page(head=render.JSON_HEAD, body=_ENCODER.encode(WireBatches(data=data, first_id=first, last_id=last, has_more=found.has_more)))


def _wire(job: Job) -> WireBatch:
    usage = job.usage
    return WireBatch(
        id=job.id,
        endpoint=job.endpoint,
        errors=WireFaults(data=job.faults) if job.faults else None,
        input_file_id=job.input_file_id,
        completion_window=job.window,
        status=job.status.value,
        output_file_id=job.output_file_id,
        error_file_id=job.error_file_id,
        created_at=int(job.created_at),
        in_progress_at=_whole(job.in_progress_at),
        expires_at=_whole(job.expires_at),
        finalizing_at=_whole(job.finalizing_at),
        completed_at=_whole(job.completed_at),
        failed_at=_whole(job.failed_at),
        expired_at=_whole(job.expired_at),
        cancelling_at=_whole(job.cancelling_at),
        cancelled_at=_whole(job.cancelled_at),
        request_counts=WireCounts(total=job.total, completed=job.completed, failed=job.failed),
        metadata=job.metadata,
        model=job.model or None,
        usage=WireBatchUsage(
            input_tokens=usage.input_tokens,
            input_tokens_details=_Cached(usage.cached_tokens),
            output_tokens=usage.output_tokens,
            output_tokens_details=_Reasoning(usage.reasoning_tokens),
            total_tokens=usage.input_tokens + usage.output_tokens,
        ),
        qwenbox=WireCost(cost_micros=usage.cost_micros, currency=job.currency),
    )


def _whole(at: float | None) -> int | None:
    return None if at is None else int(at)


class _Asked(msgspec.Struct):
    """A line of the input, as far as it is the batch's business."""

    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Model(msgspec.Struct):
    model: str | None = None


_ASKED = msgspec.json.Decoder(_Asked)
_MODEL = msgspec.json.Decoder(_Model)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the input. body: the request as JSON."""

    custom_id: str
    model: str
    body: bytes


def line(data: bytes, endpoint: str) -> Line | BatchFault:
    """Read one line, without its end; the fault has no line number yet."""
    try:
        asked_for = _ASKED.decode(data)
        body = bytes(asked_for.body)
        model = _MODEL.decode(body).model
    except msgspec.ValidationError as error:
        return BatchFault(code="invalid_request", message=f"This line is not a request of a batch: {_first_line(error)}.")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return BatchFault(code="invalid_json_line", message="This line is not parseable as valid JSON.")
    if not asked_for.custom_id or len(asked_for.custom_id) > 256:
        return BatchFault(code="invalid_custom_id", message="custom_id has 1 to 256 characters.", param="custom_id")
    if asked_for.method != "POST":
        text = f"The provided method '{fields.quoted(asked_for.method)}' is not supported by the Batch API."
        return BatchFault(code="method_not_supported", message=text, param="method")
    if asked_for.url not in ENDPOINTS:
        text = f"The provided url '{fields.quoted(asked_for.url)}' is not supported by the Batch API."
        return BatchFault(code="url_not_found", message=text, param="url")
    if asked_for.url != endpoint:
        text = f"The provided url '{asked_for.url}' does not match the batch's endpoint '{endpoint}'."
        return BatchFault(code="mismatched_url", message=text, param="url")
    if not model:
        return BatchFault(code="missing_required_parameter", message="you must provide a model parameter.", param="model")
    return Line(custom_id=asked_for.custom_id, model=model, body=body)


def _first_line(error: msgspec.ValidationError) -> str:
    return str(error).partition("\n")[0][:200]


class _Response(msgspec.Struct):
    status_code: int
    request_id: str
    body: msgspec.Raw


class _LineError(msgspec.Struct):
    code: str
    message: str


class _Result(msgspec.Struct, kw_only=True):
    id: str
    custom_id: str
    response: _Response | None
    error: _LineError | None


class _ErrorPage(msgspec.Struct):
    error: _LineError


_ERROR_PAGE = msgspec.json.Decoder(_ErrorPage)


def done(custom_id: str, call_id: str, body: bytes) -> bytes:
    """A line of the output file, without its end."""
    return _ENCODER.encode(_Result(id=call_id, custom_id=custom_id, response=_Response(200, call_id, msgspec.Raw(body)), error=None))


def failed(custom_id: str, call_id: str, page: Page) -> bytes:
    """A line of the error file. page: what the same call would have been answered over HTTP."""
    error = _ERROR_PAGE.decode(page.body).error
    return _ENCODER.encode(
        _Result(id=call_id, custom_id=custom_id, response=_Response(page.head.status, call_id, msgspec.Raw(page.body)), error=error)
    )


def unrun(custom_id: str, line_id: str, code: str, message: str) -> bytes:
    """A line of the error file for a line that was never asked."""
    return _ENCODER.encode(_Result(id=line_id, custom_id=custom_id, response=None, error=_LineError(code, message)))


class _TestMessage(msgspec.Struct, kw_only=True):
    role: str = "assistant"
    content: str = "This is a test result."


class _TestChoice(msgspec.Struct, kw_only=True):
    finish_reason: str = "stop"
    index: int = 0
    message: _TestMessage = msgspec.field(default_factory=_TestMessage)


class _TestAnswer(msgspec.Struct, kw_only=True):
    id: str
    object: str = "chat.completion"
    created: int
    model: str = TEST_MODEL
    choices: tuple[_TestChoice, ...] = (_TestChoice(),)


def tried(call_id: str, now: float) -> bytes:
    """What the test endpoint answers."""
    return _ENCODER.encode(_TestAnswer(id=f"chatcmpl-{call_id}", created=int(now)))


def refuse_stream() -> ApiError:
    return ApiError(ErrorKind.INVALID_REQUEST, "A line of a batch is answered whole: leave stream out.", param="stream")
