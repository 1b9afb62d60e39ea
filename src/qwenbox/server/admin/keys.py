"""This is where API keys are administered over HTTP: made, changed, revoked; the secret is told once."""

import msgspec
from msgspec import UNSET

from qwenbox.client import shapes
from qwenbox.client.shapes import Nothing, Page
from qwenbox.gateway import keys as gateway
from qwenbox.server.admin import pages
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts
from qwenbox.terms.caller import Thrift
from qwenbox.terms.limits import Limits


async def every(parts: AdminParts, asked: Asked[shapes.KeysAsked, Nothing]) -> Page[shapes.Key]:
    """All keys, oldest first, revoked ones too."""
    account = (await parts.accounts.get(asked.query.account)).id if asked.query.account else None
    found, cursor = pages.cut(await parts.keys.every(account), asked.query, lambda key: key.id)
    return Page(items=tuple(_shown(key) for key in found), next_cursor=cursor)


async def create(parts: AdminParts, asked: Asked[Nothing, shapes.NewKey]) -> shapes.IssuedKey:
    """Make a key. Its secret is in this answer and never told again. account: an id or name."""
    wanted = asked.body
    key, secret = await parts.keys.issue(
        gateway.NewKey(
            account_id=(await parts.accounts.get(wanted.account)).id,
            name=wanted.name,
            compat=wanted.compat,
            seeds=wanted.seeds,
            models=None if wanted.models is None else frozenset(wanted.models),
            expires_at=wanted.expires_at,
            budget_micros=wanted.budget_micros,
            limits=Limits(rpm=wanted.rpm, tpm=wanted.tpm, concurrency=wanted.concurrency),
            cache=wanted.cache,
            thrift=Thrift(history_tokens=wanted.history_tokens, collapses_whitespace=wanted.collapses_whitespace),
        )
    )
    return shapes.IssuedKey(**msgspec.structs.asdict(_shown(key)), secret=secret.reveal())


async def get(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Key:
    """One key, by id, or by name while it is valid."""
    return _shown(await parts.keys.get(asked.path["key"]))


async def change(parts: AdminParts, asked: Asked[Nothing, shapes.KeyChange]) -> shapes.Key:
    """Change a key; running boxes know within 2 seconds. Null takes a restriction away."""
    before = await parts.keys.get(asked.path["key"])
    named = {name: value for name, value in msgspec.structs.asdict(asked.body).items() if value is not UNSET}
    for group, value in (("limits", before.limits), ("thrift", before.thrift)):
        named_of_it = {name: named.pop(name) for name in value.__struct_fields__ if name in named}
        if named_of_it:
            named[group] = msgspec.structs.replace(value, **named_of_it)
    if named.get("models") is not None:
        named["models"] = frozenset(named["models"])
    return _shown(await parts.keys.update(before.id, gateway.KeyChange(**named)))


async def revoke(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Key:
    """Refuse a key from now on; running boxes know within 2 seconds."""
    return _shown(await parts.keys.revoke(asked.path["key"]))


def _shown(key: gateway.Key) -> shapes.Key:
    values = msgspec.to_builtins(key)
    return msgspec.convert({**values, **values.pop("limits"), **values.pop("thrift")}, shapes.Key)


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /keys", every),
    operation("POST /keys", create, status=201),
    operation("GET /keys/{key}", get),
    operation("PATCH /keys/{key}", change),
    operation("DELETE /keys/{key}", revoke),
)
