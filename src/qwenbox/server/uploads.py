"""This is where files for a call come in: POST /qwenbox/v1/uploads, a form that carries a signed policy instead of a key.

Not below a dialect's prefix: the service's storage is a host of its own, whose address the client is told.
"""

from contextlib import aclosing

from qwenbox.dialects.base import Head, Page, UploadPost, UploadsWire
from qwenbox.server import problems
from qwenbox.server.exchange import ClientGone, Exchange
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.upload import Permit
from qwenbox.uploads import Uploads

PREFIX = "/qwenbox/v1/uploads"

# SDKs take nothing but 200 for an answer, and read no body.
_STORED = Page(head=Head(status=200, media_type="application/xml"), body=b"")


class Received:
    """speech: the dialect whose clients upload."""

    def __init__(self, uploads: Uploads, speech: UploadsWire) -> None:
        self._uploads = uploads
        self._speech = speech

    async def answer(self, exchange: Exchange) -> None:
        """What it does not expect is raised."""
        try:
            await self._receive(exchange)
            page = _STORED
        except ClientGone:
            return
        except ApiError as error:
            await exchange.drain()
            page = problems.page(error)
        await exchange.page(page)

    async def _receive(self, exchange: Exchange) -> None:
        wire = exchange.head()
        if wire.path.rstrip("/") != PREFIX:
            raise ApiError(ErrorKind.NOT_FOUND)
        if wire.method != "POST":
            raise ApiError(ErrorKind.METHOD_NOT_ALLOWED, "Files are uploaded with POST.")
        reader = self._speech.read(wire)
        async with aclosing(exchange.pieces()) as pieces:
            # Who sends is known once the file begins: until then there are only small fields.
            data, post = b"", None
            async for piece in pieces:
                data = reader.feed(piece)
                if (post := reader.post) is not None:
                    break
            if post is None:
                reader.end()
                raise ApiError(ErrorKind.FORBIDDEN)
            permit = self._permit(post)
            async with self._uploads.receive(permit) as incoming:
                await incoming.write(data)
                async for piece in pieces:
                    await incoming.write(reader.feed(piece))
                reader.end()
                await self._uploads.keep(incoming, permit, post.name)

    def _permit(self, post: UploadPost) -> Permit:
        if not post.policy or not self._uploads.is_signed(post.policy, post.signature):
            text = "The request signature we calculated does not match the signature you provided. The policy comes before the file."
            raise ApiError(ErrorKind.FORBIDDEN, text)
        permit = self._speech.permit(post.policy)
        self._uploads.check(permit, post.name)
        return permit
