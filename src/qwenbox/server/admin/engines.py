"""This is where the states of all engines are told over HTTP."""

from collections.abc import Iterable

import anyio

from qwenbox.client.shapes import Deployment, ModelHealth, Nothing, Page
from qwenbox.gateway.catalog import Deployment as Running
from qwenbox.gateway.catalog import Model
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts, live
from qwenbox.terms.engine import Health


async def health(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Page[ModelHealth]:
    """Every model and how its deployments are. Only a running box can tell."""
    models = live(parts).catalog.every()
    healths = await healths_of(models)
    items = [
        ModelHealth(model=model.entry.name, deployments=tuple(_shown(one, healths[one.name]) for one in model.deployments))
        for model in models
    ]
    return Page(items=tuple(items))


async def healths_of(models: Iterable[Model]) -> dict[str, Health]:
    """Of all their deployments by name, asked at the same time: some are other people's servers."""
    found: dict[str, Health] = {}

    async def ask(deployment: Running) -> None:
        found[deployment.name] = await deployment.engine.health()

    wanted = {deployment.name: deployment for model in models for deployment in model.deployments}
    async with anyio.create_task_group() as tasks:
        for deployment in wanted.values():
            tasks.start_soon(ask, deployment)
    return found


def _shown(running: Running, told: Health) -> Deployment:
    facts = running.engine.facts
    return Deployment(name=running.name, kind=facts.kind, weights=facts.weights, state=told.state.value, detail=told.detail)


OPERATIONS: tuple[Operation, ...] = (operation("GET /engines", health),)
