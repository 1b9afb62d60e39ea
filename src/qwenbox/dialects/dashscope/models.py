"""This is where the native models list is read and written (wire reference 7.6), with what really answers beside each name."""

import msgspec

from qwenbox.dialects.base import Head, ListedModel, ModelsPage, Page, WireRequest
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.model import Capability, Price, PriceTier

DEFAULT_PAGE_SIZE = 20
MOST_PAGE_SIZE = 200
MOST_PAGE_NO = 2**31 - 1

_FEATURES = {
    Capability.TOOLS: "function-calling",
    Capability.JSON: "structured-outputs",
    Capability.LOGPROBS: "logprobs",
}
# What writes no text: in our own words, since the service's for these are not known here.
_NO_TEXT = {
    Capability.EMBEDDING: ("Embedding", "Vector"),
    Capability.RERANK: ("Rerank", "Score"),
    Capability.IMAGE: ("ImageGeneration", "Image"),
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
    others = [word for capability, (word, _) in _NO_TEXT.items() if capability in card.capabilities]
    capabilities = others or ["TG"]
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
        inference_metadata=_Modalities(
            request_modality=["Text", "Image"] if is_seeing else ["Text"],
            response_modality=[made for capability, (_, made) in _NO_TEXT.items() if capability in card.capabilities] or ["Text"],
        ),
        capabilities=capabilities,
        features=[word for capability, word in _FEATURES.items() if capability in card.capabilities],
        model_info=_Info(
            context_window=card.context_tokens, max_input_tokens=card.input_limit_tokens, max_output_tokens=card.output_limit_tokens
        ),
        prices=[] if model.price is None else _prices(model.price),
        aliases=list(model.aliases),
        deployments=[
            _Deployment(
                engine=facts.kind, weights=facts.weights, state=health.state.value, detail=health.detail, keeps_seeds=facts.keeps_seeds
            )
            for facts, health in model.deployments
        ],
    )


def _prices(price: Price) -> list[_PriceRange]:
    """One range for each tier of the input's length, as the service's own list has them."""
    unit = f"{price.currency}/1M tokens"
    starts = [0, *(tier.up_to_tokens or 0 for tier in price.tiers)]
    return [
        _PriceRange(range_name=_range(start, tier, len(price.tiers)), prices=_tier(tier, unit))
        for start, tier in zip(starts, price.tiers, strict=False)
    ]


def _range(start: int, tier: PriceTier, count: int) -> str:
    if count == 1:
        return "Default"
    return f"input > {start}" if tier.up_to_tokens is None else f"{start} < input <= {tier.up_to_tokens}"


def _tier(tier: PriceTier, unit: str) -> list[_Price]:
    if tier.picture_micros is not None:
        return [
            _Price(
                type="image_number", price=_decimal(tier.picture_micros), price_unit=unit.partition("/")[0] + "/image", price_name="Image"
            )
        ]
    rows = (
        ("input_token", tier.input_micros, "Input"),
        ("cached_token", tier.cached_micros, "Cached input"),
        ("image_token", tier.image_micros, "Image input"),
        ("output_token", tier.output_micros, "Output"),
        ("thinking_output_token", tier.reasoning_micros, "Reasoning output"),
    )
    return [
        _Price(type=kind, price=_decimal(micros), price_unit=unit, price_name=name) for kind, micros, name in rows if micros is not None
    ]


def _decimal(micros: int) -> str:
    """Millionths as a plain decimal: 800_000 is "0.8", 2_000_000 is "2"."""
    whole, rest = divmod(micros, 1_000_000)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")
