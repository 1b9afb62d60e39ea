"""This is where the models list is written for OpenAI clients: the four fields they know, and what really answers beside them."""

from collections.abc import Sequence

import msgspec

from qwenbox.dialects.base import ListedModel, ModelsPage, Page, WireRequest
from qwenbox.dialects.openai import render
from qwenbox.terms.errors import ApiError, ErrorKind


class WireDeployment(msgspec.Struct, kw_only=True):
    """What may answer, in order of preference."""

    engine: str
    weights: str
    state: str
    detail: str
    keeps_seeds: bool


class WireModel(msgspec.Struct, kw_only=True):
    """OpenAI's fields first; the rest is ours and ignored by its SDK."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "system"
    description: str
    context_length: int
    max_input_tokens: int
    max_output_tokens: int
    capabilities: list[str]
    aliases: list[str]
    deployments: list[WireDeployment]


class WireModels(msgspec.Struct, kw_only=True):
    object: str = "list"
    data: list[WireModel]


_ENCODER = msgspec.json.Encoder()


def parse(request: WireRequest) -> ModelsPage:
    """All models, or the one the path names."""
    return ModelsPage(model=request.path_params.get("model"))


def page(models: tuple[ListedModel, ...], asked: ModelsPage, request_id: str) -> Page:
    """Raises ApiError(MODEL_NOT_FOUND) when one model was asked for and is not among `models` by name or alias."""
    if asked.model is None:
        return Page(head=render.JSON_HEAD, body=_ENCODER.encode(WireModels(data=[_model(row, row.name) for row in models])))
    row = _find(models, asked.model)
    return Page(head=render.JSON_HEAD, body=_ENCODER.encode(_model(row, asked.model)))


def _find(models: Sequence[ListedModel], name: str) -> ListedModel:
    for row in models:
        if name == row.name or name in row.aliases:
            return row
    raise ApiError(ErrorKind.MODEL_NOT_FOUND, param=name)


def _model(row: ListedModel, name: str) -> WireModel:
    card = row.card
    return WireModel(
        id=name,
        created=row.created_at,
        description=card.description,
        context_length=card.context_tokens,
        max_input_tokens=card.input_limit_tokens,
        max_output_tokens=card.output_limit_tokens,
        capabilities=sorted(capability.value for capability in card.capabilities),
        aliases=list(row.aliases),
        deployments=[
            WireDeployment(
                engine=facts.kind, weights=facts.weights, state=health.state.value, detail=health.detail, keeps_seeds=facts.keeps_seeds
            )
            for facts, health in row.deployments
        ],
    )
