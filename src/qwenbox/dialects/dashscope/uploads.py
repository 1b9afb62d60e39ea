"""This is where a client is told where to upload a file for a call, and where its form is read (wire reference 3.4).

The policy is a post policy as the service's own storage has it, base64 of JSON; the box signs it and needs no memory of it.
"""

import base64
import binascii
from datetime import UTC, datetime

import msgspec

from qwenbox.dialects import forms
from qwenbox.dialects.base import Head, Page, UploadPost, WireRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.upload import Grant, Permit

_BUCKET = "dashscope-instant"
_ACL, _FORBID_OVERWRITE = "private", "true"
# The service's forms have an id of their signer's here.
_ACCESS_KEY_ID = "qwenbox"
_MIB = 1024 * 1024
_MOST_MODEL = 128

_encoder = msgspec.json.Encoder()


class _Policy(msgspec.Struct, frozen=True):
    """permit: ours; what a storage does not know it ignores."""

    expiration: str
    conditions: tuple[tuple[str | int, ...] | dict[str, str], ...]
    permit: Permit


_decoder = msgspec.json.Decoder(_Policy)


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    policy: str
    signature: str
    upload_dir: str
    upload_host: str
    expire_in_seconds: int
    max_file_size_mb: int
    capacity_limit_mb: int
    oss_access_key_id: str
    x_oss_object_acl: str
    x_oss_forbid_overwrite: str


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    data: _Data
    request_id: str


def asked(request: WireRequest) -> str:
    """The model that the upload is for. Raises ApiError(INVALID_REQUEST)."""
    if request.query.get("action") != "getPolicy":
        raise _missing("action")
    model = request.query.get("model", "")
    if not model or len(model) > _MOST_MODEL:
        raise _missing("model")
    return model


def policy(permit: Permit) -> str:
    """What is signed."""
    expiration = datetime.fromtimestamp(permit.expires_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    conditions: tuple[tuple[str | int, ...] | dict[str, str], ...] = (
        ("content-length-range", 0, permit.most_bytes),
        ("starts-with", "$key", f"{permit.folder}/"),
        {"bucket": _BUCKET},
        {"x-oss-object-acl": _ACL},
        {"x-oss-forbid-overwrite": _FORBID_OVERWRITE},
    )
    return base64.b64encode(_encoder.encode(_Policy(expiration, conditions, permit))).decode()


def permit(policy: str) -> Permit:
    """Of a policy that was signed here. Raises ApiError(FORBIDDEN) for anything else."""
    try:
        return _decoder.decode(base64.b64decode(policy, validate=True)).permit
    except (binascii.Error, ValueError) as error:
        raise ApiError(ErrorKind.FORBIDDEN, "Invalid according to Policy: the policy was not made here.") from error


def granted(grant: Grant, request_id: str) -> Page:
    permit = grant.permit
    data = _Data(
        policy=grant.policy,
        signature=grant.signature,
        upload_dir=permit.folder,
        upload_host=grant.url,
        expire_in_seconds=grant.lasts_s,
        max_file_size_mb=max(1, permit.most_bytes // _MIB),
        capacity_limit_mb=max(1, grant.account_bytes // _MIB),
        oss_access_key_id=_ACCESS_KEY_ID,
        x_oss_object_acl=_ACL,
        x_oss_forbid_overwrite=_FORBID_OVERWRITE,
    )
    # No cache on the way may keep a leave to upload.
    head = Head(status=200, media_type="application/json", headers={"cache-control": "no-store"})
    return Page(head=head, body=_encoder.encode(_Body(data=data, request_id=request_id)))


class Post:
    """See dialects.base.UploadPostReader."""

    def __init__(self, boundary: bytes) -> None:
        self._form = forms.Form(boundary)

    def feed(self, data: bytes) -> bytes:
        return self._form.feed(data)

    @property
    def post(self) -> UploadPost | None:
        if self._form.filename is None:
            return None
        fields = self._form.leading
        return UploadPost(policy=fields.get("policy", ""), signature=fields.get("Signature", ""), name=fields.get("key", ""))

    def end(self) -> None:
        self._form.end()


def read(request: WireRequest) -> Post:
    """For the body of this request. Raises ApiError(INVALID_REQUEST) when it is no form."""
    boundary = forms.boundary(request.headers.get("content-type", ""))
    if boundary is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, "Files are uploaded as multipart/form-data.")
    return Post(boundary)


def _missing(name: str) -> ApiError:
    text = f"Required parameter({name}) missing or invalid, please check the request parameters."
    return ApiError(ErrorKind.INVALID_REQUEST, text, param=name)
