"""This is where stored responses are shown: as they were answered, with what was asked, and gone."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from qwenbox.dialects.base import Page, WireRequest
from qwenbox.dialects.openai import fields
from qwenbox.dialects.openai.render import JSON_HEAD
from qwenbox.dialects.openai.responses.wire import Counted, Deleted, ItemsPage
from qwenbox.terms.conversation import StoredResponse

_DEFAULT_LISTED, _MOST_LISTED = 20, 100

_ENCODER = msgspec.json.Encoder()
_ITEMS = msgspec.json.Decoder(list[Raw])


class _Named(msgspec.Struct, frozen=True):
    id: str


_NAMED = msgspec.json.Decoder(_Named)


def one(request: WireRequest, stored: StoredResponse) -> Page:
    if request.query.get("stream") == "true":
        raise fields.invalid("Stored responses are not streamed again.", "stream")
    return Page(head=JSON_HEAD, body=stored.response)


def deleted(response_id: str) -> Page:
    return Page(head=JSON_HEAD, body=_ENCODER.encode(Deleted(id=response_id)))


def counted(tokens: int) -> Page:
    return Page(head=JSON_HEAD, body=_ENCODER.encode(Counted(input_tokens=tokens)))


def input_page(request: WireRequest, stored: StoredResponse) -> Page:
    """What this turn asked, without the turns before it. Raises ApiError(INVALID_REQUEST) naming the parameter."""
    query = request.query
    order = query.get("order") or "desc"
    if order not in ("asc", "desc"):
        raise fields.invalid(f"'{fields.quoted(order)}' is not one of ['asc', 'desc'] - 'order'", "order")
    rows = _ITEMS.decode(stored.input)
    if order == "desc":
        rows.reverse()
    ids = [_NAMED.decode(row).id for row in rows]
    if after := query.get("after"):
        if after not in ids:
            raise fields.invalid(f"No such item: {fields.quoted(after)}", "after")
        first = ids.index(after) + 1
        rows, ids = rows[first:], ids[first:]
    return Page(head=JSON_HEAD, body=_ENCODER.encode(_page(rows, ids, _limit(query.get("limit")))))


def _page(rows: Sequence[Raw], ids: Sequence[str], limit: int) -> ItemsPage:
    shown = list(ids[:limit])
    first, last = (shown[0], shown[-1]) if shown else (None, None)
    return ItemsPage(data=list(rows[:limit]), first_id=first, last_id=last, has_more=len(rows) > limit)


def _limit(text: str | None) -> int:
    if not text:
        return _DEFAULT_LISTED
    if not (text.isascii() and text.isdigit() and len(text) < 7 and 1 <= int(text) <= _MOST_LISTED):
        raise fields.invalid(f"Range of limit should be [1, {_MOST_LISTED}]", "limit")
    return int(text)
