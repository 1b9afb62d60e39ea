"""This is where a client asks which models there are, and what really answers."""

from qwenbox.dialects.base import Dialect, ListedModel, ModelsPage, WireRequest
from qwenbox.gateway.catalog import ANY_MODEL, Catalog, Model, is_open_to
from qwenbox.gateway.prices import Tariff
from qwenbox.server.exchange import Exchange
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.caller import Caller


async def models(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    parse, render = dialect.parse_models or missing(dialect), dialect.render_models or missing(dialect)
    page = parse(wire)
    asked = _asked(parts.gateway.catalog, page, caller)
    listed = tuple([await _listed(model, name, parts.prices.tariff(name, wire.received_at)) for name, model in asked])
    await exchange.page(render(listed, page, wire.id))


def _asked(catalog: Catalog, page: ModelsPage, caller: Caller) -> list[tuple[str, Model]]:
    if page.model is not None:
        model = catalog.find(page.model) or catalog.find(ANY_MODEL)
        found = [] if model is None else [(page.model, model)]
    else:
        found = [(model.entry.name, model) for model in catalog.every() if model.entry.name != ANY_MODEL]
    return [(name, model) for name, model in found if is_open_to(caller, name, model)]


async def _listed(model: Model, name: str, tariff: Tariff) -> ListedModel:
    return ListedModel(
        name=name,
        card=model.entry.card,
        created_at=model.entry.created_at,
        deployments=tuple([(deployment.engine.facts, await deployment.engine.health()) for deployment in model.deployments]),
        aliases=model.entry.aliases,
        price=tariff.price if tariff.version else None,
    )
