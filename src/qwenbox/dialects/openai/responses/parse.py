"""This is where Responses requests come in: bytes → a draft, and with the turns before it → ChatRequest and the reply that will answer."""

import msgspec

from qwenbox.dialects.base import ParsedResponse, WireRequest
from qwenbox.dialects.openai import fields
from qwenbox.dialects.openai.responses import items, options, render
from qwenbox.dialects.openai.responses.schema import Body, Item, StoredOutput
from qwenbox.terms.caller import Compat
from qwenbox.terms.chat import ChatRequest

_BODY = msgspec.json.Decoder(Body)
_ITEMS = msgspec.json.Decoder(list[Item])
_OUTPUT = msgspec.json.Decoder(StoredOutput)


def _text(body: bytes) -> bytes:
    """The same bytes. What the decoder passes over is said back in the answer, so that it must be text, too."""
    try:
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError as error:
        raise fields.invalid("Required body invalid, please check the request body format. It is not valid UTF-8.") from error
    return body


class Draft:
    """A request by itself, checked as far as it can be without the turns before it.

    previous_id: the response it goes on from. wants_storing: None where the caller did not say. is_truncated: the oldest turns may be left
    out where the model's context is too short.
    """

    def __init__(self, request: WireRequest, compat: Compat) -> None:
        """Raises ApiError(INVALID_REQUEST) naming the field at fault."""
        self._request = request
        self._body = body = fields.decode(_BODY, _text(request.body))
        self._model = fields.model(body)
        if body.input is None or body.input == []:
            raise fields.invalid("Field required: input", "input")
        options.refuse_unsupported(body)
        self._compat = compat
        self.previous_id = body.previous_response_id or None
        self.wants_storing = body.store
        self.is_truncated = options.is_truncated(body)

    def join(self, turns: tuple[tuple[bytes, bytes], ...], *, is_stored: bool) -> ParsedResponse:
        """With the turns before, (input, response) each, oldest first. Raises as the constructor."""
        body = self._body
        own = items.named(body.input or "", self._request.id)
        reader = items.Reader(body.instructions)
        for asked, answered in turns:
            reader.read(_ITEMS.decode(asked))
            reader.read(_OUTPUT.decode(answered).output)
        reader.read(own)
        specs = options.tools(body, self._compat)
        request = ChatRequest(
            model=self._model,
            messages=reader.messages(),
            sampling=fields.sampling(body, self._compat),
            max_output_tokens=fields.max_tokens(body.max_output_tokens, "max_output_tokens"),
            tools=specs,
            tool_choice=options.choice(body, specs),
            is_parallel_tool_calls=body.parallel_tool_calls is not False,
            response_format=options.response_format(body),
            thinking=options.thinking(body),
        )
        reply = render.reply(self._request, request, body, items=own, is_stored=is_stored)
        return ParsedResponse(request=request, reply=reply)
