"""This is where `/console` leads a browser to the console, which is a process with a port of its own; no key needed."""

import math
import re
from collections.abc import Awaitable, Callable
from html import escape
from typing import TypeAlias
from urllib.parse import urlsplit

from qwenbox.dialects.base import Head, Page
from qwenbox.server import problems
from qwenbox.server.exchange import Exchange
from qwenbox.terms.errors import ApiError, ErrorKind

PREFIX = "/console"
_METHODS = ("GET", "HEAD")

# What a one-time link's token is made of; anything else is not passed on.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,200}")

# The console's port. Raises ApiError with a message for the visitor.
FindConsole: TypeAlias = Callable[[], Awaitable[int]]

_HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>qwenbox</title><style>
:root {{ color-scheme: light dark; font: 16px/1.6 system-ui, sans-serif }} body {{ max-width: 42rem; margin: 15vh auto; padding: 0 1.5rem }}
h1 {{ font-size: 1.25rem }} code {{ font-size: .9em }} p {{ overflow-wrap: anywhere }}
</style></head><body><main><h1>{title}</h1><p>{message}</p><p lang="zh-CN">{hint}</p></main></body></html>
"""
_TITLES = {404: "No console here", 403: "The console is closed"}
_HINTS = {
    404: "这个 qwenbox 没有启用控制台。",
    403: "控制台尚未开放:qwenbox 监听在其他机器可以访问的地址上,须先设置管理密钥和管理员密码。",
    503: "控制台现在无法打开,请按上面的说明处理,或稍后再试。",
}


class ConsoleDoor:
    """A desk of the box. public_url: where browsers find the console behind a proxy; "" for the host they came to, at its port."""

    def __init__(self, find: FindConsole, public_url: str = "") -> None:
        self._find = find
        self._public_url = public_url

    async def answer(self, exchange: Exchange) -> None:
        try:
            page = await self._led(exchange)
        except ApiError as error:
            page = _refused(error) if _is_browser(exchange) else problems.page(error)
        await exchange.page(Page(head=page.head, body=b"") if exchange.method == "HEAD" else page)

    async def _led(self, exchange: Exchange) -> Page:
        if exchange.path.rstrip("/") != PREFIX:
            raise ApiError(ErrorKind.NOT_FOUND, f"There is nothing here; the console is at {PREFIX}.")
        if exchange.method not in _METHODS:
            raise ApiError(ErrorKind.METHOD_NOT_ALLOWED, f"{PREFIX} is fetched with {' or '.join(_METHODS)}.")
        port = await self._find()
        token = exchange.head().query.get("token", "")
        path = f"/link?token={token}" if _TOKEN.fullmatch(token) else "/"
        headers = {"location": (self._public_url or _beside(exchange.address, port)) + path, **_HEADERS}
        return Page(head=Head(status=307, media_type="text/plain; charset=utf-8", headers=headers), body=b"")


def _is_browser(exchange: Exchange) -> bool:
    return "text/html" in exchange.head().headers.get("accept", "")


def _beside(address: str, port: int) -> str:
    """The same host at another port."""
    host = urlsplit(address).hostname or "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _refused(error: ApiError) -> Page:
    """For people: the message as a page."""
    status = problems.STATUSES[error.kind]
    wait = {} if error.retry_after_s is None else {"retry-after": str(max(1, math.ceil(error.retry_after_s)))}
    title = _TITLES.get(status, "The console does not answer")
    text = _PAGE.format(title=title, message=escape(error.message), hint=_HINTS.get(status, _HINTS[503]))
    return Page(head=Head(status=status, media_type="text/html; charset=utf-8", headers=_HEADERS | wait), body=text.encode())
