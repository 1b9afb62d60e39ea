"""This is where an operation of the admin API is described once: route, types, what it does. Routing and OpenAPI follow from it."""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar, get_args, get_type_hints

import msgspec

from qwenbox.server.admin.parts import AdminParts
from qwenbox.terms.errors import ApiError, ErrorKind

Q = TypeVar("Q")
B = TypeVar("B")

# Where msgspec's messages name the field at fault.
_FIELD = re.compile(r"at `\$\.([^`.\[]+)|field `([^`]*)`")


class Asked(msgspec.Struct, Generic[Q, B], frozen=True, kw_only=True):
    """A request, checked. path: the route's parameters."""

    path: Mapping[str, str]
    query: Q
    body: B


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """path: below the API's prefix, `{name}` for a segment. query, body: structs that say what may come. answer: what goes out.

    media_type: of the answer; anything but JSON is answered as text. name: for programs that make clients.
    """

    method: str
    path: str
    name: str
    summary: str
    query: type[msgspec.Struct]
    body: type[msgspec.Struct]
    answer: object
    status: int
    media_type: str
    run: Callable[[AdminParts, Asked[msgspec.Struct, msgspec.Struct]], Awaitable[object]]


def operation(
    route: str,
    run: Callable[[AdminParts, Asked[Q, B]], Awaitable[object]],
    *,
    status: int = 200,
    media_type: str = "application/json",
) -> Operation:
    """An operation from its function, whose annotations and docstring say the rest. route: "GET /accounts/{account}"."""
    method, _, path = route.partition(" ")
    hints = get_type_hints(run)
    query, body = get_args(hints["asked"])
    module = run.__module__.rpartition(".")[2]
    return Operation(
        method=method,
        path=path,
        name=f"{module}_{run.__name__}",
        summary=inspect.getdoc(run) or "",
        query=query,
        body=body,
        answer=hints["return"],
        status=status,
        media_type=media_type,
        # The two types are checked against what is decoded, in `asked` below.
        run=run,  # pyright: ignore[reportArgumentType]
    )


def asked(wanted: Operation, path: Mapping[str, str], query: Mapping[str, str], body: bytes) -> Asked[msgspec.Struct, msgspec.Struct]:
    """The request in the operation's own types. Raises ApiError(INVALID_REQUEST) for what does not fit them."""
    try:
        # Not strict: a query has texts only.
        query_value = msgspec.convert(query, wanted.query, strict=False)
        body_value = msgspec.json.decode(body or b"{}", type=wanted.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(error) from error
    return Asked(path=path, query=query_value, body=body_value)


def _refused(error: Exception) -> ApiError:
    if not isinstance(error, msgspec.ValidationError):
        return ApiError(ErrorKind.INVALID_REQUEST, "The body is not valid JSON in UTF-8.")
    found = _FIELD.search(str(error))
    field = (found[1] or found[2])[:100] if found else None
    said = str(error)
    if "matching regex" in said:
        said = f"The value of `{field}` has characters, or a form, that are not allowed here."
    return ApiError(ErrorKind.INVALID_REQUEST, f"{said[:500]}.".replace("..", "."), param=field)
