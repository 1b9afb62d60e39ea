"""This is where every request of a browser is looked at first: session, origin, headers; log in and out.

Without a session nothing is served but the log-in page. Whatever changes something, and the web socket, must come from our own pages
(Origin), which a browser states and a foreign page cannot forge; the session's cookie is HttpOnly and SameSite=Strict on top.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from qwenbox.client.admin import AdminClient
from qwenbox.client.sign_in import NewSession, Session
from qwenbox.console import login
from qwenbox.console.texts import Texts, wanted
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

# A session that was ended elsewhere lasts this much longer on open pages.
CHECK_EVERY_S = 2.0
_MOST_FORM_BYTES = 16_384
_MOST_REMEMBERED = 1_000
_YEAR_S = 31_536_000

# NiceGUI's pages carry inline scripts and compile templates, hence the two unsafe-*; nothing at all may be fetched from elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # With "no-referrer" a browser says of our own forms that they come from nowhere (Origin: null): nobody could log in or out.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_STATUS = {
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.INVALID_REQUEST: 400,
    ErrorKind.RATE_LIMITED: 429,
    ErrorKind.TOO_LARGE: 413,
}
_CHOICES = {"language": ("en", "zh-CN"), "theme": ("auto", "light", "dark")}
SESSION = "qwenbox.session"


class _Asked:
    """One request, as far as the door looks at it."""

    def __init__(self, scope: Scope) -> None:
        self.method = str(scope.get("method", "GET"))
        self.path = str(scope["path"])
        self.query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
        self.headers: dict[str, str] = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.address = str(scope["client"][0]) if scope.get("client") else ""
        self.cookies = _cookies(self.headers.get("cookie", ""))
        self.t = Texts(wanted(self.cookies.get("qwenbox_language", ""), self.headers.get("accept-language", "")))
        self.is_dark = {"dark": True, "light": False}.get(self.cookies.get("qwenbox_theme", ""))

    @property
    def is_ours(self) -> bool:
        """Whether it comes from a page of ours, as far as the browser says where it comes from."""
        origin = self.headers.get("origin", "")
        # Compared as text: what is no URL at all is not ours either.
        return bool(origin) and origin.partition("://")[2] == self.headers.get("host", "")


class Door:
    """An ASGI application around the pages. port: tells boxes on one machine apart, as cookies do not."""

    def __init__(self, pages: Application, admin: AdminClient, port: int, *, is_local: bool) -> None:
        self._pages = pages
        self._admin = admin
        self._cookie = f"qwenbox_console_{port}"
        self._is_local = is_local
        self._checked: dict[str, tuple[float, Session]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(_Asked(scope), scope, receive, _sealed(send))
            case "websocket":
                await self._socket(_Asked(scope), scope, receive, send)
            case _:
                await self._pages(scope, receive, send)

    async def _http(self, asked: _Asked, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if asked.method not in ("GET", "HEAD") and not asked.is_ours:
                raise ApiError(ErrorKind.FORBIDDEN, asked.t("This request does not come from a page of this console."))
            if not self._is_local and not (await self._admin.console_state()).has_password:
                raise ApiError(
                    ErrorKind.FORBIDDEN, asked.t("The console stays closed on this address until an administrator has a password.")
                )
            match asked.method, asked.path:
                case "GET", "/link":
                    await self._enter_by_link(asked, send)
                case "GET", "/login":
                    await _html(send, 200, login.page(asked.t, asked.is_dark))
                case "POST", "/login":
                    await self._enter_by_password(asked, receive, send)
                case "POST", "/logout":
                    await self._leave(asked, send)
                case "GET", "/preferences":
                    await _prefer(asked, send)
                case _:
                    await self._inside(asked, scope, receive, send)
        except ApiError as error:
            waits = [(b"retry-after", str(round(error.retry_after_s)).encode())] if error.retry_after_s else []
            await _html(send, _STATUS.get(error.kind, 502), login.page(asked.t, asked.is_dark, error.message), waits)

    async def _inside(self, asked: _Asked, scope: Scope, receive: Receive, send: Send) -> None:
        session = await self._session(asked)
        if session is None:
            await _redirect(send, "/login")
            return
        await self._pages(_known(scope, session), receive, send)

    async def _socket(self, asked: _Asked, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            session = await self._session(asked) if asked.is_ours else None
        except ApiError:
            session = None
        if session is None:
            await receive()
            await send({"type": "websocket.close", "code": 4401})
            return

        async def still_in() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive" and not await self._is_in(asked):
                await send({"type": "websocket.close", "code": 4401})
                return {"type": "websocket.disconnect", "code": 4401}
            return message

        await self._pages(_known(scope, session), still_in, send)

    async def _is_in(self, asked: _Asked) -> bool:
        """A box that does not answer for a moment throws nobody out."""
        try:
            return await self._session(asked) is not None
        except ApiError:
            return True

    async def _session(self, asked: _Asked) -> Session | None:
        token = asked.cookies.get(self._cookie, "")
        if not token:
            return None
        checked = self._checked.get(token)
        if checked is not None and time.monotonic() - checked[0] < CHECK_EVERY_S:
            return checked[1]
        self._checked.pop(token, None)
        try:
            session = await self._admin.session(Secret(token))
        except ApiError as error:
            if error.kind in (ErrorKind.UNAUTHENTICATED, ErrorKind.INVALID_REQUEST):
                return None
            raise
        if len(self._checked) >= _MOST_REMEMBERED:
            self._checked.clear()
        self._checked[token] = (time.monotonic(), session)
        return session

    async def _enter_by_link(self, asked: _Asked, send: Send) -> None:
        # Whoever is in already, and opens the link once more, wants to get in and not to read that it was used.
        if await self._session(asked) is not None:
            await _redirect(send, "/")
            return
        await self._enter(asked, NewSession(address=asked.address, link=asked.query.get("token", "")), send)

    async def _enter_by_password(self, asked: _Asked, receive: Receive, send: Send) -> None:
        form = await _form(receive)
        given = NewSession(address=asked.address, account=form.get("account", ""), password=form.get("password", ""))
        await self._enter(asked, given, send)

    async def _enter(self, asked: _Asked, given: NewSession, send: Send) -> None:
        session = await self._admin.log_in(given)
        await _redirect(send, "/", [self._cookie_line(asked, session.token, "")])

    async def _leave(self, asked: _Asked, send: Send) -> None:
        if token := asked.cookies.get(self._cookie, ""):
            self._checked.pop(token, None)
            await self._admin.log_out(Secret(token))
        await _redirect(send, "/login", [self._cookie_line(asked, "", "; Max-Age=0")])

    def _cookie_line(self, asked: _Asked, value: str, more: str) -> tuple[bytes, bytes]:
        is_safe = asked.headers.get("x-forwarded-proto", "") == "https"
        secure = "; Secure" if is_safe else ""
        return b"set-cookie", f"{self._cookie}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}".encode("latin-1")


def _known(scope: Scope, session: Session) -> Scope:
    """The same request for the pages: whose session it is; without a header that would be written into them."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-prefix"]
    return {**scope, "headers": headers, "state": {**scope.get("state", {}), SESSION: session}}


def _cookies(line: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(line).items()}
    except CookieError:
        return {}


async def _form(receive: Receive) -> dict[str, str]:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MOST_FORM_BYTES:
            raise ApiError(ErrorKind.TOO_LARGE, "The form is too large.")
        if not message.get("more_body"):
            return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


async def _prefer(asked: _Asked, send: Send) -> None:
    """Language and theme, kept in cookies of a year; then back to where the visitor was."""
    wishes = [(name, asked.query[name]) for name in ("language", "theme") if asked.query.get(name, "") in _CHOICES[name]]
    cookies = [
        (b"set-cookie", f"qwenbox_{name}={value}; Path=/; SameSite=Lax; Max-Age={_YEAR_S}".encode("latin-1")) for name, value in wishes
    ]
    back = asked.query.get("back", "/")
    is_path = back.startswith("/") and not back.startswith("//") and back.isascii() and back.isprintable() and "\\" not in back
    await _redirect(send, back if is_path else "/", cookies)


async def _redirect(send: Send, to: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    # "no-store": a browser must not remember where it was sent without a session.
    await _plain(send, 303, b"", [(b"location", to.encode("latin-1")), (b"cache-control", b"no-store"), *headers])


async def _html(send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    await _plain(send, status, text.encode(), [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store"), *headers])


async def _plain(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    lines = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


def _sealed(send: Send) -> Send:
    """The same, with the headers that keep a browser from leaving this machine."""

    async def seal(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return seal
