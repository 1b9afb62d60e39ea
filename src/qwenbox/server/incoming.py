"""This is where a parsed request becomes a call: who asks, when, in which dialect, what else he wishes, and how pieces reach him."""

from zlib import crc32

import msgspec

from qwenbox.dialects.base import Dialect, Parsed, WireRequest
from qwenbox.engines.faults import EXTENSION
from qwenbox.server.parts import Parts
from qwenbox.server.wishes import wishes
from qwenbox.terms.call import Call, R
from qwenbox.terms.caller import Caller


def call(parts: Parts, dialect: Dialect, wire: WireRequest, caller: Caller, parsed: Parsed[R]) -> Call[R]:
    """Raises ApiError(INVALID_REQUEST) for headers that make no sense."""
    wished, request = wishes(wire.headers), parsed.request
    wire.timeline.account_id, wire.timeline.key_id = caller.account_id, caller.key_id
    if wished.provoke and parts.provokes:
        request = msgspec.structs.replace(request, extensions={**request.extensions, EXTENSION: wished.provoke.encode()})
    return Call(
        id=wire.id,
        caller=caller,
        request=request,
        dialect=dialect.name,
        arrived_at=wire.received_at,
        # What keeps a silent line open speaks before its end.
        is_incremental=parsed.reply.heartbeat() != b"",
        mark=crc32(wire.body, crc32(caller.key_id.encode())) or 1,
        wishes=wished,
        timeline=wire.timeline,
    )
