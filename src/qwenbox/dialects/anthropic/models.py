"""This is where the models list is written for Anthropic's clients."""

from datetime import UTC, datetime

import msgspec

from qwenbox.dialects.anthropic import render
from qwenbox.dialects.anthropic.schema import WireModel, WireModels
from qwenbox.dialects.base import ListedModel, ModelsPage, Page, WireRequest
from qwenbox.terms.errors import ApiError, ErrorKind

_ENCODER = msgspec.json.Encoder()


def parse(request: WireRequest) -> ModelsPage:
    """All models, on one page, or the one the path names."""
    return ModelsPage(model=request.path_params.get("model"))


def page(models: tuple[ListedModel, ...], asked: ModelsPage, request_id: str) -> Page:
    """Raises ApiError(MODEL_NOT_FOUND) when one model was asked for and is not among `models` by name or alias."""
    head = render.json_head(request_id)
    if asked.model is None:
        rows = [_model(row, row.name) for row in models]
        first, last = (rows[0].id, rows[-1].id) if rows else (None, None)
        return Page(head=head, body=_ENCODER.encode(WireModels(data=rows, has_more=False, first_id=first, last_id=last)))
    for row in models:
        if asked.model == row.name or asked.model in row.aliases:
            return Page(head=head, body=_ENCODER.encode(_model(row, asked.model)))
    raise ApiError(ErrorKind.MODEL_NOT_FOUND, param=asked.model)


def _model(row: ListedModel, name: str) -> WireModel:
    return WireModel(
        id=name,
        display_name=name,
        created_at=datetime.fromtimestamp(row.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        max_input_tokens=row.card.input_limit_tokens,
        max_tokens=row.card.output_limit_tokens,
    )
