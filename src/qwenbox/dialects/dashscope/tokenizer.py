"""This is where a prompt comes to be cut into tokens, and they are written (wire reference 7.5).

Only the texts count: no template stands around messages here.
"""

import msgspec

from qwenbox.dialects.base import Head, Page, TokensAsked, TokensCut, WireRequest
from qwenbox.dialects.dashscope import body, errors
from qwenbox.dialects.dashscope.schema import Input, Item
from qwenbox.terms.errors import ApiError, ErrorKind


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]


class _Usage(msgspec.Struct, frozen=True, kw_only=True):
    input_tokens: int


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    output: _Output
    usage: _Usage
    request_id: str


_encoder = msgspec.json.Encoder()


def parse(request: WireRequest) -> TokensAsked:
    """Raises ApiError(INVALID_REQUEST) in the service's words."""
    given = body.decode(request.body)
    if not given.model:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_MODEL, param="model")
    if given.input is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_INPUT, param="input")
    if isinstance(given.input, str):
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.ILLEGAL_INPUT, param="input")
    texts = tuple(text for text in _texts(given.input) if text)
    if not texts:
        raise ApiError(ErrorKind.INVALID_REQUEST, errors.EMPTY_INPUT, param="input")
    return TokensAsked(model=given.model, texts=texts)


def page(cut: TokensCut, request_id: str) -> Page:
    answer = _Answer(output=_Output(token_ids=cut.ids, tokens=cut.pieces), usage=_Usage(input_tokens=len(cut.ids)), request_id=request_id)
    return Page(head=Head(status=200, media_type="application/json"), body=_encoder.encode(answer))


def _texts(given: Input) -> list[str]:
    texts = [text for turn in given.history or () for text in (turn.user, turn.bot)]
    for message in given.messages or ():
        content = message.content
        if isinstance(content, str):
            texts.append(content)
        else:
            texts += [_item(item) for item in content or ()]
    prompt = given.prompt
    return [*texts, prompt] if isinstance(prompt, str) else [*texts, *(prompt or ())]


def _item(item: Item) -> str:
    if item.text is None:
        raise ApiError(ErrorKind.INVALID_REQUEST, "Only texts can be cut into tokens.", param="input.messages")
    return item.text
