"""This is where the price book is shown over HTTP."""

import msgspec

from qwenbox.client.shapes import Nothing, PriceBook, PriceRow, PriceTier
from qwenbox.gateway.prices import PriceRow as Row
from qwenbox.gateway.prices import Prices
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts


async def get(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> PriceBook:
    """The price book, as the settings have it: every row, and whether it applies now."""
    now = parts.clock.now()
    rows = tuple(_shown(row, is_active=parts.prices.tariff(row.model, now).version == row.version) for row in parts.prices.rows)
    return PriceBook(currency=parts.prices.currency, rows=rows)


def in_force(prices: Prices, model: str, at: float) -> PriceRow | None:
    """The row that a model is billed by at that moment; None where it costs nothing."""
    version = prices.tariff(model, at).version
    return next((_shown(row, is_active=True) for row in prices.rows if version and row.version == version), None)


def _shown(row: Row, *, is_active: bool) -> PriceRow:
    return PriceRow(
        model=row.model,
        since=row.since.isoformat(),
        currency=row.currency,
        version=row.version,
        is_active=is_active,
        cached_permille=row.cached_permille,
        batch_permille=row.batch_permille,
        tiers=tuple(PriceTier(**msgspec.structs.asdict(tier)) for tier in row.tiers),
    )


OPERATIONS: tuple[Operation, ...] = (operation("GET /prices", get),)
