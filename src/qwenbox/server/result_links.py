"""This is where what a call made is fetched by its signed link, without a key; nothing can be listed here."""

from qwenbox.dialects.base import Head, Page
from qwenbox.jobs.results import PREFIX, Results
from qwenbox.server import problems
from qwenbox.server.exchange import Exchange
from qwenbox.terms.errors import ApiError, ErrorKind

_METHODS = ("GET", "HEAD")


class ResultLinks:
    """A desk of the box."""

    def __init__(self, results: Results) -> None:
        self._results = results

    async def answer(self, exchange: Exchange) -> None:
        try:
            page = await self._fetched(exchange)
        except ApiError as error:
            page = problems.page(error)
        await exchange.page(page)

    async def _fetched(self, exchange: Exchange) -> Page:
        if exchange.method not in _METHODS:
            raise ApiError(ErrorKind.METHOD_NOT_ALLOWED, f"A link is fetched with {' or '.join(_METHODS)}.")
        query = exchange.head().query
        name = exchange.path.removeprefix(PREFIX)
        fetched = await self._results.fetch(name, query.get("Expires", ""), query.get("Signature", ""))
        # Shown as what it is and as nothing else, also by a browser: a picture is never a page with scripts.
        headers = {"cache-control": "private, max-age=3600", "x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
        return Page(head=Head(status=200, media_type=fetched.media_type, headers=headers), body=fetched.data)
