"""This is where the native models list is read and written (wire reference 7.6), with what really answers beside each name."""

import msgspec

from qwenbox.dialects.base import Head, ListedModel, ModelsPage, Page, WireRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.model import Capability, ModelCard

DEFAULT_PAGE_SIZE = 20
MOST_PAGE_SIZE = 200
MOST_PAGE_NO = 2**31 - 1

_FEATURES = {
    Capability.TOOLS: "function-calling",
    Capability.JSON: "structured-outputs",
    Capability.LOGPROBS: "logprobs",
}
_encoder = msgspec.json.Encoder()


class _Modalities(msgspec.Struct, frozen=True, kw_only=True):
    request_modality: list[str]
    response_modality: list[str]


class _Info(msgspec.Struct, frozen=True, kw_only=True):
    context_window: int
    max_input_tokens: int
    max_output_tokens: int


class _Price(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    price: str
    price_unit: str
    price_name: str


class _PriceRange(msgspec.Struct, frozen=True, kw_only=True):
    range_name: str
    prices: list[_Price]


class _Deployment(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    weights: str
    state: str
    detail: str
    keeps_seeds: bool


class _Model(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    name: str
    description: str
    provider: str
    inference_provider: str
    inference_metadata: _Modalities
    capabilities: list[str]
    features: list[str]
    model_info: _Info
    prices: list[_PriceRange]
    aliases: list[str]
    deployments: list[_Deployment]


class _Listing(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    page_no: int
    page_size: int
    models: list[_Model]


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    success: bool
    request_id: str
    output: _Listing


def parse(request: WireRequest) -> ModelsPage:
    """Which page of the list, or which one name. Raises ApiError(INVALID_REQUEST) for a page that is no number in its range."""
    return ModelsPage(
        model=request.query.get("model") or None,
        page_no=_number(request, "page_no", MOST_PAGE_NO) or 1,
        page_size=_number(request, "page_size", MOST_PAGE_SIZE),
    )


def render(models: tuple[ListedModel, ...], page: ModelsPage, request_id: str) -> Page:
    """One page of the list. A name that nobody has gives an empty list, which every SDK turns into its own 404."""
    wanted = [model for model in models if page.model is None or page.model == model.name or page.model in model.aliases]
    size = page.page_size or DEFAULT_PAGE_SIZE
    start = (page.page_no - 1) * size
    listing = _Listing(
        total=len(wanted), page_no=page.page_no, page_size=size, models=[_model(model) for model in wanted[start : start + size]]
    )
    body = _encoder.encode(_Body(success=True, request_id=request_id, output=listing))
    return Page(head=Head(status=200, media_type="application/json"), body=body)


def _number(request: WireRequest, name: str, most: int) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    # isdecimal alone admits digits of other scripts, and a very long run of them would be refused by int().
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) else 0
    if not 1 <= number <= most:
        raise ApiError(ErrorKind.INVALID_REQUEST, f"Range of {name} should be [1, {most}]", param=name)
    return number


def _model(model: ListedModel) -> _Model:
    card = model.card
    is_seeing = Capability.VISION in card.capabilities
    capabilities = ["TG"]
    if Capability.THINKING in card.capabilities:
        capabilities.append("Reasoning")
    if is_seeing:
        capabilities.append("VU")
    return _Model(
        model=model.name,
        name=model.name,
        description=card.description,
        provider="qwen",
        inference_provider="qwenbox",
        inference_metadata=_Modalities(request_modality=["Text", "Image"] if is_seeing else ["Text"], response_modality=["Text"]),
        capabilities=capabilities,
        features=[word for capability, word in _FEATURES.items() if capability in card.capabilities],
        model_info=_Info(
            context_window=card.context_tokens, max_input_tokens=card.input_limit_tokens, max_output_tokens=card.output_limit_tokens
        ),
        prices=_prices(card),
        aliases=list(model.aliases),
        deployments=[
            _Deployment(
                engine=facts.kind, weights=facts.weights, state=health.state.value, detail=health.detail, keeps_seeds=facts.keeps_seeds
            )
            for facts, health in model.deployments
        ],
    )


def _prices(card: ModelCard) -> list[_PriceRange]:
    unit = f"{card.price.currency}/1M tokens"
    rows = (("input_token", card.price.input_micros, "Input"), ("output_token", card.price.output_micros, "Output"))
    prices = [_Price(type=kind, price=_decimal(micros), price_unit=unit, price_name=name) for kind, micros, name in rows]
    return [_PriceRange(range_name="Default", prices=prices)]


def _decimal(micros: int) -> str:
    """Millionths as a plain decimal: 800_000 is "0.8", 2_000_000 is "2"."""
    whole, rest = divmod(micros, 1_000_000)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")
