"""This is where the price book is shown over HTTP."""

import msgspec

from qwenbox.client.shapes import Nothing, PriceBook, PriceRow, PriceTier
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts


async def get(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> PriceBook:
    """The price book, as the settings have it: every row, and whether it applies now."""
    now = parts.clock.now()
    rows = tuple(
        PriceRow(
            model=row.model,
            since=row.since.isoformat(),
            currency=row.currency,
            version=row.version,
            is_active=parts.prices.tariff(row.model, now).version == row.version,
            cached_permille=row.cached_permille,
            batch_permille=row.batch_permille,
            tiers=tuple(PriceTier(**msgspec.structs.asdict(tier)) for tier in row.tiers),
        )
        for row in parts.prices.rows
    )
    return PriceBook(currency=parts.prices.currency, rows=rows)


OPERATIONS: tuple[Operation, ...] = (operation("GET /prices", get),)
