"""This is where the service's refusals are read: its codes and texts as what they mean for our caller (wire reference 5.3).

Its key, account and bill are the box's, not the caller's: UNAUTHENTICATED, FORBIDDEN and OUT_OF_FUNDS tell the gateway not to ask there
again, with a text for whoever runs the box; it shows none of them as the caller's own.
"""

from collections.abc import Mapping

import msgspec

from qwenbox.dialects import sse
from qwenbox.dialects.dashscope import errors
from qwenbox.dialects.dashscope.heard import HeardError
from qwenbox.terms.errors import ApiError, ErrorKind

KEY_REFUSED = (
    "The model's service refuses this box's API key ({code}). Whoever runs the box: check the key; one is good in its own region only."
)
ACCOUNT_REFUSED = "The model's service does not serve this box's account ({code}). Whoever runs the box: look into its console there."
OVERDUE = "This box's account at the model's service is in arrears ({code}). Whoever runs the box: settle its bill there."
UNKNOWN = "The model's service does not take such a call ({code})."
BROKEN = "The model's service failed ({code})."
WRONG_PATH = "url error, please check url"
LONGEST_MESSAGE = 400
LONGEST_CODE = 64

_OVERDUE = frozenset({"Arrearage", "PrepaidBillOverdue", "PostpaidBillOverdue"})
_UNBOUGHT = frozenset({"CommodityNotPurchased", "AllocationQuota"})
_MODERATED = frozenset({"DataInspectionFailed", "CustomRoleBlocked", "FaqRuleBlocked", "IPInfringementSuspect"})
_TOO_LONG = "Range of input length"
_NO_MODEL = "Model not exist"
_STATUS_COMMENT = "HTTP_STATUS/"

_ABOUT_THE_BOX = {
    ErrorKind.UNAUTHENTICATED: KEY_REFUSED,
    ErrorKind.FORBIDDEN: ACCOUNT_REFUSED,
    ErrorKind.OUT_OF_FUNDS: OVERDUE,
}
_WAITS = frozenset({ErrorKind.RATE_LIMITED, ErrorKind.QUOTA_EXHAUSTED, ErrorKind.OVERLOADED})
# Said in the service's own words, as a caller without the box would hear them.
_TOLD = frozenset({ErrorKind.INVALID_REQUEST, ErrorKind.CONTEXT_TOO_LONG, ErrorKind.CONTENT_REJECTED, ErrorKind.MODEL_NOT_FOUND})
_decoder = msgspec.json.Decoder(HeardError)


def failure(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """What a refusal means for our caller; its body is JSON, or a stream of one error frame. Never raises.

    headers: names in lower case; `retry-after` and `retry-after-ms` are kept.
    """
    if body.lstrip()[:1] not in (b"{", b""):
        frames = sse.Frames()
        for frame in [*frames.feed(body), *frames.finish()]:
            if frame.event == "error":
                return framed(frame, status)
    return _meaning(status, _read(body), _retry_after_s(headers))


def framed(frame: sse.Frame, status: int = 500) -> ApiError:
    """An error frame of a stream. status: where its own comment has none."""
    told = [comment.removeprefix(_STATUS_COMMENT) for comment in frame.comments if comment.startswith(_STATUS_COMMENT)]
    if told and len(told[0]) == 3 and told[0].isascii() and told[0].isdecimal():
        status = int(told[0])
    return _meaning(status, _read(frame.data), None)


def is_wrong_path(error: ApiError) -> bool:
    """Whether the service wants this model's calls on its other path, text or multimodal."""
    return error.kind is ErrorKind.INVALID_REQUEST and error.message.startswith(WRONG_PATH)


def _meaning(status: int, said: HeardError, retry_after_s: float | None) -> ApiError:
    code, message = said.code or "", (said.message or "")[:LONGEST_MESSAGE]
    ours = _about_the_box(status, code)
    shown = code if code and code.isprintable() and len(code) <= LONGEST_CODE else f"status {status}"
    if ours is not None:
        return ApiError(ours, _ABOUT_THE_BOX[ours].format(code=shown))
    kind = _kind(status, code, message)
    if kind in _WAITS:
        return ApiError(kind, message, retry_after_s=retry_after_s)
    if kind in _TOLD:
        return ApiError(kind, message)
    if kind in (ErrorKind.TOO_LARGE, ErrorKind.TIMEOUT):
        return ApiError(kind)
    return ApiError(ErrorKind.ENGINE_FAILED, (BROKEN if status >= 500 else UNKNOWN).format(code=shown))


def _kind(status: int, code: str, message: str) -> ErrorKind:
    if code in _MODERATED:
        return ErrorKind.CONTENT_REJECTED
    kind = errors.kind_of(code, status)
    if kind is ErrorKind.INVALID_REQUEST and _TOO_LONG in message:
        return ErrorKind.CONTEXT_TOO_LONG
    return ErrorKind.MODEL_NOT_FOUND if kind is ErrorKind.INVALID_REQUEST and message.startswith(_NO_MODEL) else kind


def _about_the_box(status: int, code: str) -> ErrorKind | None:
    """What is between the box and its service alone; None for everything else."""
    if code in _OVERDUE or status == 402:
        return ErrorKind.OUT_OF_FUNDS
    if code.partition(".")[0] in _UNBOUGHT:
        return ErrorKind.FORBIDDEN
    if code == "InvalidApiKey" or (status == 401 and code != "NOT AUTHORIZED"):
        return ErrorKind.UNAUTHENTICATED
    return ErrorKind.FORBIDDEN if status in (401, 403) else None


def _read(body: bytes) -> HeardError:
    try:
        return _decoder.decode(body)
    except (ValueError, RecursionError):
        return HeardError()


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    for name, per_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        text = headers.get(name, "")
        if text.isascii() and text.isdigit() and len(text) < 10:
            return int(text) / per_second
    return None
