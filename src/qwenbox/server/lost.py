"""This is where a client that knocked on the wrong door is told the right one, or that there is none."""

from collections.abc import Callable

import msgspec

from qwenbox.dialects.base import Dialect, Page
from qwenbox.dialects.unserved import Unserved
from qwenbox.server.exchange import Exchange
from qwenbox.terms.errors import ApiError, ErrorKind

_ALL = "What it serves and what not: docs/coverage.md."


class Lost:
    """Makes the 404 or 405 of the dialect a client most likely speaks, naming the base URL it should have used."""

    def __init__(self, dialects: tuple[Dialect, ...], methods: Callable[[str], list[str]]) -> None:
        self._dialects = dialects
        self._methods = methods

    def page(self, exchange: Exchange) -> Page:
        path = exchange.path.rstrip("/")
        if found := self._unserved(path):
            dialect, family = found
            text = f"{family.name} ({exchange.method[:20]} {path[:200]}): qwenbox does not serve that: {family.why}. {_ALL}"
            return dialect.error_page(ApiError(ErrorKind.NOT_FOUND, text), exchange.id)
        dialect = self._spoken(path)
        if methods := self._methods(path):
            allowed = sorted(set(methods))
            text = f"Request method '{exchange.method}' is not supported. Use {' or '.join(allowed)} for {path[:200]}."
            page = dialect.error_page(ApiError(ErrorKind.METHOD_NOT_ALLOWED, text), exchange.id)
            head = msgspec.structs.replace(page.head, headers={**page.head.headers, "allow": ", ".join(allowed)})
            return msgspec.structs.replace(page, head=head)
        return dialect.error_page(ApiError(ErrorKind.NOT_FOUND, self._advice(exchange, path, dialect)), exchange.id)

    def _unserved(self, path: str) -> tuple[Dialect, Unserved] | None:
        for dialect in self._dialects:
            for prefix in dialect.prefixes:
                below = path.removeprefix(prefix)
                if below != path and (family := next((one for one in dialect.unserved if one.has(below)), None)):
                    return dialect, family
        return None

    def _spoken(self, path: str) -> Dialect:
        """By the path itself, else by the route it ends like, else by the prefix it starts with, else the first dialect."""
        for dialect in self._dialects:
            if any(path == prefix + route.path for prefix in dialect.prefixes for route in dialect.routes):
                return dialect
        for dialect in self._dialects:
            if any(path.endswith(route.path) for route in dialect.routes if "{" not in route.path and route.path.count("/") > 1):
                return dialect
        for dialect in self._dialects:
            if any(path == prefix or path.startswith(f"{prefix}/") for prefix in dialect.prefixes):
                return dialect
        return self._dialects[0]

    def _advice(self, exchange: Exchange, path: str, dialect: Dialect) -> str:
        base = f"{exchange.scope.get('scheme', 'http')}://{_host(exchange)}"
        wanted = next((route for route in dialect.routes if "{" not in route.path and path.endswith(route.path)), None)
        if wanted is not None:
            right = f"{dialect.prefixes[0]}{wanted.path}"
            return f"There is nothing at {path[:200]}. For this API the base URL is {base}{dialect.prefixes[0]} (the path becomes {right})."
        known = ", ".join(f"{base}{known.prefixes[0]} ({known.name})" for known in self._dialects)
        return f"There is nothing at {path[:200]}. Base URLs of this box: {known}."


def _host(exchange: Exchange) -> str:
    for name, value in exchange.scope["headers"]:
        if name == b"host":
            return value.decode("latin-1")
    host, port = exchange.scope["server"]
    return f"{host}:{port}"
