"""This is where the states of all engines are told over HTTP."""

from qwenbox.client.shapes import Deployment, ModelHealth, Nothing, Page
from qwenbox.gateway.catalog import Deployment as Running
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts, live


async def health(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Page[ModelHealth]:
    """Every model and how its deployments are. Only a running box can tell."""
    models = live(parts).catalog.every()
    items = [
        ModelHealth(model=model.entry.name, deployments=tuple([await _shown(deployment) for deployment in model.deployments]))
        for model in models
    ]
    return Page(items=tuple(items))


async def _shown(running: Running) -> Deployment:
    facts, told = running.engine.facts, await running.engine.health()
    return Deployment(name=running.name, kind=facts.kind, weights=facts.weights, state=told.state.value, detail=told.detail)


OPERATIONS: tuple[Operation, ...] = (operation("GET /engines", health),)
