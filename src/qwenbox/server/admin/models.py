"""This is where models are administered over HTTP: what they are, their weights on the way, loaded, unloaded, measured."""

import msgspec

from qwenbox.client import catalog as shapes
from qwenbox.client.shapes import Nothing, Page, Paging
from qwenbox.gateway.catalog import Deployment, Model
from qwenbox.gateway.speed import Speed
from qwenbox.server.admin import pages, prices
from qwenbox.server.admin.engines import healths_of
from qwenbox.server.admin.machine import Machine
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts, live
from qwenbox.terms.engine import Health
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.weights.pulls import PullReport, PullState

# The worst of several files' states is the model's, in this order.
_WORST = (PullState.RUNNING, PullState.FAILED, PullState.CANCELLED, PullState.NONE, PullState.DONE)


async def every(parts: AdminParts, asked: Asked[Paging, Nothing]) -> Page[shapes.Model]:
    """Every model of the catalog in its order: what it can, what it costs, where it runs and how that is. Only a running box can tell."""
    found, cursor = pages.cut(live(parts).catalog.every(), asked.query, lambda model: model.entry.name)
    return Page(items=await _shown(parts, found), next_cursor=cursor)


async def get(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Model:
    """One model, by its name or an alias."""
    return (await _shown(parts, (_model(parts, asked.path["model"]),)))[0]


async def pull(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Pull:
    """Fetch the weights that a model needs on this machine; answers at once, and goes on where an interrupted pull stopped.

    A file that is being fetched already, by whomever, is not fetched twice. As soon as it is here the model answers.
    """
    model, machine = _model(parts, asked.path["model"]), live(parts).machine
    if not (names := _names(machine, model)):
        kinds = ", ".join(deployment.engine.facts.kind for deployment in model.deployments)
        raise ApiError(ErrorKind.INVALID_REQUEST, f"{model.entry.name} needs no weights here: what answers it is {kinds}.", param="model")
    await machine.pulls.start(names)
    return _pull(machine, model)


async def pull_state(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Pull:
    """How far a model's weights are."""
    return _pull(live(parts).machine, _model(parts, asked.path["model"]))


async def cancel_pull(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Pull:
    """Stop fetching a model's weights; what is here is kept, and the next pull goes on from there."""
    model, machine = _model(parts, asked.path["model"]), live(parts).machine
    for name in _names(machine, model):
        await machine.pulls.cancel(name)
    return _pull(machine, model)


async def pulls(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Page[shapes.Pull]:
    """Pulls that run, and those that ended without the weights being here."""
    machine = live(parts).machine
    found = [_pull(machine, model) for model in live(parts).catalog.every() if _names(machine, model)]
    return Page(items=tuple(one for one in found if one.state in (PullState.RUNNING, PullState.FAILED, PullState.CANCELLED)))


async def load(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Model:
    """Load a model's weights now instead of on the first call; answers when they are. Models that nobody uses may have to make room."""
    model = _model(parts, asked.path["model"])
    able = [deployment for deployment in model.deployments if deployment.name in live(parts).machine.loadable]
    chosen = next((deployment for deployment in able if deployment.is_here), None) or (able[0] if able else None)
    if chosen is None:
        raise _nothing_to_load(model)
    await live(parts).machine.loadable[chosen.name].warm()
    return (await _shown(parts, (model,)))[0]


async def unload(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Model:
    """Give back the memory that a model's weights take, until its next call. 409 while calls use them: nothing is interrupted."""
    model, machine = _model(parts, asked.path["model"]), live(parts).machine
    able = [machine.loadable[deployment.name] for deployment in model.deployments if deployment.name in machine.loadable]
    if not able:
        raise _nothing_to_load(model)
    for engine in able:
        if not await engine.unload():
            text = f"{model.entry.name} is in use: calls are being answered, or its weights are being loaded. Try again when they are done."
            raise ApiError(ErrorKind.CONFLICT, text, param="model")
    return (await _shown(parts, (model,)))[0]


async def measure(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> shapes.Speed:
    """Let a model read some hundred tokens and write 64, past limits and books, and remember how fast it was.

    Weights that are not loaded are loaded first, which does not count. Calls that run meanwhile make it slower. A model that runs at a
    provider's costs there what it costs. 409 while another model is measured.
    """
    return _speed(await live(parts).machine.speeds.measure(asked.path["model"]))


def _model(parts: AdminParts, name: str) -> Model:
    model = live(parts).catalog.find(name)
    if model is None:
        raise ApiError(ErrorKind.NOT_FOUND, f"The catalog has no model {name!r}.", param="model")
    return model


def _nothing_to_load(model: Model) -> ApiError:
    text = f"{model.entry.name} has nothing to load here: it runs somewhere else, or needs no weights."
    return ApiError(ErrorKind.INVALID_REQUEST, text, param="model")


async def _shown(parts: AdminParts, models: tuple[Model, ...]) -> tuple[shapes.Model, ...]:
    machine, now = live(parts).machine, parts.clock.now()
    healths, speeds = await healths_of(models), await machine.speeds.last()
    found: list[shapes.Model] = []
    for model in models:
        entry, card = model.entry, model.entry.card
        speed = speeds.get(entry.name)
        found.append(
            shapes.Model(
                name=entry.name,
                aliases=entry.aliases,
                description=card.description,
                capabilities=tuple(sorted(card.capabilities)),
                context_tokens=card.context_tokens,
                max_input_tokens=card.max_input_tokens,
                max_output_tokens=card.max_output_tokens,
                price=prices.in_force(parts.prices, entry.name, now),
                deployments=tuple(_deployment(machine, deployment, healths[deployment.name]) for deployment in model.deployments),
                speed=_speed(speed) if speed else None,
                pull=_pull(machine, model).state if _names(machine, model) else PullState.NONE.value,
            )
        )
    return tuple(found)


def _deployment(machine: Machine, deployment: Deployment, health: Health) -> shapes.DeploymentInfo:
    facts = deployment.engine.facts
    return shapes.DeploymentInfo(
        name=deployment.name,
        kind=facts.kind,
        weights=facts.weights,
        state=health.state.value,
        detail=health.detail,
        context_tokens=facts.context_tokens,
        can_load=deployment.name in machine.loadable,
        files=tuple(_file(machine, name) for name in machine.files.get(deployment.name, ())),
    )


def _file(machine: Machine, name: str) -> shapes.WeightsFile:
    entry, store = machine.store.entry(name), machine.store
    return shapes.WeightsFile(
        name=name,
        title=entry.title,
        file=store.place(name).name,
        licence=entry.licence,
        bytes_here=store.bytes_here(name),
        bytes_total=machine.pulls.state(name).total_bytes,
        is_here=store.path(name) is not None,
    )


def _names(machine: Machine, model: Model) -> tuple[str, ...]:
    """Of the weights that its deployments need, those that can be fetched or are here."""
    return tuple(dict.fromkeys(name for deployment in model.deployments for name in machine.files.get(deployment.name, ())))


def _pull(machine: Machine, model: Model) -> shapes.Pull:
    reports = [machine.pulls.state(name) for name in _names(machine, model)]
    states = {report.state for report in reports}
    totals = [report.total_bytes for report in reports]
    total = sum(one for one in totals if one is not None) if None not in totals else None
    done, rate = sum(report.done_bytes for report in reports), sum(report.rate_bytes_s for report in reports)
    state = next((state for state in _WORST if state in states), PullState.NONE)
    return shapes.Pull(
        model=model.entry.name,
        state=state.value,
        bytes_done=done,
        bytes_total=total,
        rate_bytes_s=rate,
        eta_s=max(0, total - done) / rate if total is not None and rate > 0 and state is PullState.RUNNING else None,
        reason="\n\n".join(dict.fromkeys(report.reason for report in reports if report.reason)),
        files=tuple(_pulled(machine, report) for report in reports),
    )


def _pulled(machine: Machine, report: PullReport) -> shapes.PulledFile:
    return shapes.PulledFile(
        name=report.name,
        title=machine.store.entry(report.name).title,
        state=report.state.value,
        phase=report.phase.value if report.phase else None,
        source=report.source.value if report.source else None,
        bytes_done=report.done_bytes,
        bytes_total=report.total_bytes,
        rate_bytes_s=report.rate_bytes_s,
        reason=report.reason,
    )


def _speed(speed: Speed) -> shapes.Speed:
    return shapes.Speed(**msgspec.structs.asdict(speed))


OPERATIONS: tuple[Operation, ...] = (
    operation("GET /models", every),
    operation("GET /models/{model}", get),
    operation("POST /models/{model}/pull", pull, status=202),
    operation("GET /models/{model}/pull", pull_state),
    operation("DELETE /models/{model}/pull", cancel_pull),
    operation("GET /pulls", pulls),
    operation("POST /models/{model}/load", load),
    operation("POST /models/{model}/unload", unload),
    operation("POST /models/{model}/measure", measure),
)
