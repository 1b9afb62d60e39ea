"""This is where the response cache is looked at and emptied over HTTP."""

from qwenbox.client.shapes import CachePurge, CachePurged, CacheState, Nothing
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts


async def state(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> CacheState:
    """What is kept, where, and how many of all calls were answered from it."""
    cache = parts.cache
    kept = await cache.state()
    answered = await parts.statements.hits()
    return CacheState(
        is_enabled=cache.config.enabled,
        place=cache.shelf_name,
        scope=cache.config.scope.value,
        ttl_s=cache.config.ttl_s,
        entries=kept.entries,
        bytes=kept.bytes,
        most_bytes=cache.config.max_bytes,
        oldest_at=kept.oldest_at,
        calls=answered.calls,
        hits=answered.hits,
    )


async def purge(parts: AdminParts, asked: Asked[CachePurge, Nothing]) -> CachePurged:
    """Forget answers: of one account, one model, or all. Other processes of the box follow within a second."""
    account = (await parts.accounts.get(asked.query.account)).id if asked.query.account else None
    return CachePurged(entries=await parts.cache.purge(account, asked.query.model or None))


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /cache", state),
    operation("DELETE /cache", purge),
)
