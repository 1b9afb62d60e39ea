"""This is where the console asks who may come in: one-time links, sessions, passwords."""

from qwenbox.client import sign_in as shapes
from qwenbox.client.shapes import Nothing
from qwenbox.client.sign_in import ConsoleState, LoginLink, NewSession, SessionToken
from qwenbox.gateway import sign_in as gateway
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts
from qwenbox.terms.secret import Secret


async def state(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> ConsoleState:
    """Whether anybody can log in to the console with a password."""
    return ConsoleState(has_password=await parts.sign_in.has_password())


async def link(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> LoginLink:
    """Make a link into the console: for one browser, within 24 hours."""
    made = await parts.sign_in.link()
    return LoginLink(token=made.token.reveal(), expires_at=made.expires_at)


async def log_in(parts: AdminParts, asked: Asked[Nothing, NewSession]) -> shapes.Session:
    """Begin a session, with a link or with the name and password of an account with the role admin.

    401 for what is wrong, used or too old; 403 for an account without that role; 429 with `retry-after` after 5 wrong tries for a name
    from an address, or from an address at all.
    """
    body = asked.body
    if body.link:
        return _shown(await parts.sign_in.redeem(Secret(body.link), body.address))
    return _shown(await parts.sign_in.log_in(body.account, Secret(body.password), body.address))


async def check(parts: AdminParts, asked: Asked[Nothing, SessionToken]) -> shapes.Session:
    """The session of a token, which is used with it: it ends [console] session_hours after its last use. 401 when it is over."""
    return _shown(await parts.sign_in.check(Secret(asked.body.token)))


async def end(parts: AdminParts, asked: Asked[Nothing, SessionToken]) -> None:
    """End a session, at once and everywhere."""
    await parts.sign_in.end(Secret(asked.body.token))


def _shown(session: gateway.Session) -> shapes.Session:
    return shapes.Session(token=session.token.reveal(), account=session.account, expires_at=session.expires_at)


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /console", state),
    operation("POST /console/links", link, status=201),
    operation("POST /console/sessions", log_in, status=201),
    operation("POST /console/sessions/check", check),
    operation("POST /console/sessions/end", end, status=204),
)
