"""This is where prompts and answers that were kept are shown and deleted over HTTP."""

import msgspec

from qwenbox.client.recordings import Forgotten, Recording, RecordingsForgotten, RecordingState
from qwenbox.client.shapes import Nothing
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts
from qwenbox.terms.errors import ApiError, ErrorKind


async def state(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> RecordingState:
    """Whether prompts and answers are recorded, for how long, and how many there are."""
    config, kept = parts.recordings.config, await parts.recordings.kept()
    return RecordingState(
        is_enabled=config.enabled, keep_days=config.keep_days, max_bytes=config.max_bytes, count=kept.count, oldest_at=kept.oldest_at
    )


async def read(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Recording:
    """One call's prompt and answer, a moment after its end. Not found for a call that was not recorded, or is no longer kept."""
    found = await parts.recordings.read(asked.path["request_id"])
    if found is None:
        why = "is not kept any more, or is not written yet" if parts.recordings.config.enabled else "recording is off: [recording] enabled"
        raise ApiError(ErrorKind.NOT_FOUND, f"No prompt and answer of this call are kept ({why}).", param="request_id")
    return msgspec.convert(msgspec.to_builtins(found), Recording)


async def forget_one(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Forgotten:
    """Delete one call's prompt and answer; its row and its receipt stay."""
    return Forgotten(recordings=await parts.recordings.forget(request_id=asked.path["request_id"]))


async def forget(parts: AdminParts, asked: Asked[RecordingsForgotten, Nothing]) -> Forgotten:
    """Delete prompts and answers of an account, or older than a moment, or all; rows and receipts stay."""
    query = asked.query
    account_id = (await parts.accounts.get(query.account)).id if query.account else None
    return Forgotten(recordings=await parts.recordings.forget(account_id=account_id, before=query.before))


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /recordings", state),
    operation("DELETE /recordings", forget),
    operation("GET /receipts/{request_id}/recording", read),
    operation("DELETE /receipts/{request_id}/recording", forget_one),
)
