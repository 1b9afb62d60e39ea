import httpx
import msgspec
import pytest
from dashscope.v2.resources.models import _parse_list

from qwenbox.dialects.base import ListedModel, ModelsPage, WireRequest
from qwenbox.dialects.dashscope import models
from qwenbox.terms.engine import EngineFacts, Health, HealthState
from qwenbox.terms.errors import ApiError
from qwenbox.terms.model import Capability, ModelCard, Price, PriceTier

CARD = ModelCard(
    context_tokens=32768,
    max_output_tokens=8192,
    capabilities=frozenset({Capability.CHAT, Capability.TOOLS, Capability.VISION, Capability.THINKING}),
)
PRICE = Price(version="v", currency="CNY", tiers=(PriceTier(input_micros=2_400_000, output_micros=10_000_000),))
FACTS = EngineFacts(kind="llamacpp", weights="W Q4", keeps_seeds=True)
LISTED = tuple(
    ListedModel(
        name=f"qwen-{at}",
        card=CARD,
        created_at=0,
        aliases=(f"alias-{at}",),
        deployments=((FACTS, Health(state=HealthState.MISSING)),),
        price=PRICE,
    )
    for at in range(25)
)


def listing(page: ModelsPage) -> dict:
    return msgspec.json.decode(models.render(LISTED, page, "id").body)["output"]


def page_of(**query: str) -> ModelsPage:
    return models.parse(WireRequest(id="id", method="GET", path="/api/v1/models", received_at=0.0, query=query))


def test_pages_cover_every_model_once() -> None:
    names = [model["model"] for at in (1, 2, 3, 4) for model in listing(ModelsPage(page_no=at, page_size=10))["models"]]
    assert [model.name for model in LISTED] == names
    assert (25, 20) == (listing(ModelsPage())["total"], len(listing(ModelsPage())["models"]))


@pytest.mark.parametrize("name", ["qwen-7", "alias-7"])
def test_filter_finds_a_name_and_its_alias(name: str) -> None:
    assert ["qwen-7"] == [model["model"] for model in listing(ModelsPage(model=name, page_size=1))["models"]]


def test_row_says_which_weights_answer() -> None:
    row = listing(ModelsPage(model="qwen-0"))["models"][0]
    assert [{"engine": "llamacpp", "weights": "W Q4", "state": "missing", "detail": "", "keeps_seeds": True}] == row["deployments"]
    assert (["TG", "Reasoning", "VU"], ["function-calling"]) == (row["capabilities"], row["features"])
    assert ["2.4", "10"] == [price["price"] for price in row["prices"][0]["prices"]]


def test_row_has_a_range_of_prices_for_each_tier_of_the_input() -> None:
    tiers = (
        PriceTier(up_to_tokens=131_072, input_micros=800_000, output_micros=2_000_000, reasoning_micros=8_000_000),
        PriceTier(input_micros=2_400_000, output_micros=20_000_000),
    )
    model = msgspec.structs.replace(LISTED[0], price=Price(version="v", currency="CNY", tiers=tiers))
    ranges = msgspec.json.decode(models.render((model,), ModelsPage(), "id").body)["output"]["models"][0]["prices"]
    assert ["0 < input <= 131072", "input > 131072"] == [one["range_name"] for one in ranges]
    assert [("input_token", "0.8"), ("output_token", "2"), ("thinking_output_token", "8")] == [
        (price["type"], price["price"]) for price in ranges[0]["prices"]
    ]


def test_row_has_no_prices_without_a_price() -> None:
    model = msgspec.structs.replace(LISTED[0], price=None)
    assert [] == msgspec.json.decode(models.render((model,), ModelsPage(), "id").body)["output"]["models"][0]["prices"]


def test_v2_client_reads_the_page() -> None:
    page = models.render(LISTED, ModelsPage(page_no=3, page_size=10), "id")
    found = _parse_list(httpx.Response(200, content=page.body).json())
    assert (25, 3, 10, 5, "qwen") == (found.total_count, found.page_no, found.page_size, len(found.models), found.models[0].provider)


def test_query_is_read() -> None:
    assert ModelsPage() == page_of()
    assert ModelsPage(model="m", page_no=2, page_size=200) == page_of(model="m", page_no="2", page_size="200")


@pytest.mark.parametrize(
    "query", [{"page_no": "0"}, {"page_no": "x"}, {"page_size": "201"}, {"page_size": "-1"}, {"page_no": "²"}, {"page_no": "9" * 5000}]
)
def test_page_out_of_range_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        page_of(**query)
    assert caught.value.message.startswith(f"Range of {next(iter(query))} should be [1, ")
