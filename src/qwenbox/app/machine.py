"""This is where administration gets at what runs below the models: files of weights, engines that can be loaded, their speed."""

from contextlib import AsyncExitStack

from qwenbox.app.engines import Engines
from qwenbox.app.office import Office
from qwenbox.config import Config
from qwenbox.engines.llamacpp.config import LlamaCppConfig
from qwenbox.engines.registry import around
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.settings import Settings
from qwenbox.gateway.speed import Speeds
from qwenbox.server.admin.machine import Machine
from qwenbox.terms.engine import Unloadable
from qwenbox.weights.pulls import Pulls


async def open_machine(stack: AsyncExitStack, config: Config, engines: Engines, gateway: Gateway, office: Office) -> Machine:
    """For the admin API of a running box; pulls that it starts end with `stack`."""
    inner = {name: name for name in config.engine} | around(config.engine)
    own = {name: engine for name, engine in engines.by_name.items() if isinstance(engine, Unloadable)}
    return Machine(
        store=engines.store,
        pulls=await stack.enter_async_context(Pulls(engines.store, office.clock.now)),
        files={name: _files(config, beneath) for name, beneath in inner.items()},
        loadable={name: own[beneath] for name, beneath in inner.items() if beneath in own},
        speeds=Speeds(gateway.catalog, gateway.router, Settings(office.database), office.clock),
    )


def _files(config: Config, engine: str) -> tuple[str, ...]:
    """Names of the weights that `[engine.NAME]` loads here, with what makes them see."""
    found = config.engine[engine]
    if not isinstance(found, LlamaCppConfig):
        return ()
    projector = config.weights[found.weights].projector
    return (found.weights, projector) if projector else (found.weights,)
