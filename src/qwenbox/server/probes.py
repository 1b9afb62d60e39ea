"""This is where machines ask whether the box lives and can answer, and people where everything is; no key needed."""

import msgspec

from qwenbox import __version__
from qwenbox.dialects.base import Dialect, Head, Page
from qwenbox.gateway.catalog import Catalog
from qwenbox.server.exchange import Exchange
from qwenbox.server.metrics import MetricsPage
from qwenbox.terms.engine import HealthState

# With these the next call is answered, if need be after a load.
_ANSWERING = frozenset({HealthState.READY, HealthState.IDLE, HealthState.STARTING})


class Probes:
    """`/health` (alive), `/ready` (every model of the catalog has a deployment that can answer, by name), `/metrics` and `/`."""

    def __init__(self, catalog: Catalog, dialects: tuple[Dialect, ...], metrics: MetricsPage | None = None) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._dialects = dialects

    async def answer(self, exchange: Exchange) -> bool:
        """Answer if the path is a probe's; False otherwise."""
        if exchange.method not in ("GET", "HEAD"):
            return False
        match exchange.path:
            case "/":
                status, body = 200, self._index()
            case "/health":
                status, body = 200, {"status": "ok"}
            case "/ready":
                status, body = await self._ready()
            case "/metrics" if self._metrics is not None:
                await self._metrics.answer(exchange)
                return True
            case _:
                return False
        head = Head(status=status, media_type="application/json")
        await exchange.page(Page(head=head, body=msgspec.json.encode(body) if exchange.method == "GET" else b""))
        return True

    def _index(self) -> dict[str, object]:
        return {
            "name": "qwenbox",
            "version": __version__,
            "base_urls": {dialect.name: list(dialect.prefixes) for dialect in self._dialects},
            "health": "/health",
            "ready": "/ready",
        }

    async def _ready(self) -> tuple[int, dict[str, object]]:
        """200 as soon as one model can answer; the states of all tell which."""
        models: dict[str, list[str]] = {}
        for model in self._catalog.every():
            models[model.entry.name] = [(await deployment.engine.health()).state.value for deployment in model.deployments]
        is_ready = any(state in _ANSWERING for states in models.values() for state in states)
        return (200 if is_ready else 503), {"status": "ready" if is_ready else "not ready", "models": models}
