"""This is where batches of every account are administered over HTTP: listed, made in a key's name, cancelled."""

from qwenbox.client import jobs as shapes
from qwenbox.client.shapes import Nothing, Page
from qwenbox.dialects.openai import batches as wire
from qwenbox.jobs.batches import RUNNING
from qwenbox.server.admin import pages
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts, live
from qwenbox.terms.caller import Caller
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.job import Batch, BatchStatus, PageAsked

_OVER = tuple(status for status in BatchStatus if status not in RUNNING)


async def every(parts: AdminParts, asked: Asked[shapes.BatchesAsked, Nothing]) -> Page[shapes.BatchJob]:
    """Batches of all accounts, newest first."""
    query = asked.query
    account_id = (await parts.accounts.get(query.account)).id if query.account else None
    statuses = () if query.is_open is None else RUNNING if query.is_open else _OVER
    wanted = PageAsked(limit=query.limit, after=pages.read(query.cursor) or None, name=query.name, statuses=statuses)
    found = await live(parts).batches.page(account_id, wanted)
    place = found.batches[-1].id if found.has_more else ""
    return Page(items=tuple(_shown(batch) for batch in found.batches), next_cursor=pages.write(place))


async def get(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.BatchJob:
    """One batch, as it stands now."""
    return _shown(await live(parts).batches.get(None, asked.path["batch"]))


async def create(parts: AdminParts, asked: Asked[Nothing, shapes.NewBatchJob]) -> shapes.BatchJob:
    """Run a file of requests that the key's account has uploaded, in the name of that key. Its lines fail once the key is revoked."""
    body = asked.body
    key = await parts.keys.get(body.key)
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= parts.clock.now()):
        raise ApiError(ErrorKind.INVALID_REQUEST, f"The key {key.name!r} is revoked or expired; take another one.", param="key")
    metadata = {name: value for name, value in (("ds_name", body.name), ("ds_description", body.description)) if value}
    new = wire.NewBody(input_file_id=body.input_file_id, endpoint=body.endpoint, completion_window=body.window, metadata=metadata or None)
    return _shown(await live(parts).batches.create(Caller(account_id=key.account_id, key_id=key.id), wire.checked(new)))


async def cancel(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.BatchJob:
    """Lines that run go on to their end, no other begins. 409 when it is over already."""
    return _shown(await live(parts).batches.cancel(None, asked.path["batch"]))


def _shown(batch: Batch) -> shapes.BatchJob:
    metadata, usage = batch.metadata or {}, batch.usage
    return shapes.BatchJob(
        id=batch.id,
        account_id=batch.account_id,
        key_id=batch.key_id,
        name=metadata.get("ds_name", ""),
        description=metadata.get("ds_description", ""),
        endpoint=batch.endpoint,
        model=batch.model,
        status=batch.status.value,
        created_at=batch.created_at,
        in_progress_at=batch.in_progress_at,
        ended_at=batch.completed_at or batch.failed_at or batch.expired_at or batch.cancelled_at,
        expires_at=batch.expires_at,
        input_file_id=batch.input_file_id,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        faults=tuple(shapes.BatchFault(code=fault.code, message=fault.message, line=fault.line) for fault in batch.faults),
        total=batch.total,
        completed=batch.completed,
        failed=batch.failed,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cost_micros=usage.cost_micros,
        currency=batch.currency,
    )


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /batches", every),
    operation("POST /batches", create, status=201),
    operation("GET /batches/{batch}", get),
    operation("POST /batches/{batch}/cancel", cancel),
)
