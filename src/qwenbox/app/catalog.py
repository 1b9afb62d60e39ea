"""This is where the catalog is built over its engines, with what redacts the calls to each of them."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from qwenbox.app.engines import open_engines
from qwenbox.clock import SystemClock
from qwenbox.config import Config, ConfigError
from qwenbox.engines.registry import around
from qwenbox.gateway.catalog import Catalog
from qwenbox.gateway.redaction.config import Mode
from qwenbox.gateway.redaction.redactor import Redactor
from qwenbox.terms.engine import TextEngine


@asynccontextmanager
async def open_catalog(config: Config) -> AsyncGenerator[Catalog]:
    """Models and what answers them, without a box: to count with. No weights are loaded, no books opened."""
    async with AsyncExitStack() as stack:
        yield catalog_over((await open_engines(stack, config, SystemClock())).by_name, config)


def catalog_over(engines: Mapping[str, TextEngine], config: Config) -> Catalog:
    """The models of `config`, answered by these engines."""
    return Catalog(config.model, engines, _redactors(config))


def _redactors(config: Config) -> dict[str, Redactor]:
    """Those of `[redaction.NAME]`; the libraries behind them are imported only for a box that has one."""
    wanted = {name: redaction for name, redaction in config.redaction.items() if redaction.mode is not Mode.OFF}
    if not wanted:
        return {}
    from qwenbox.gateway.redaction.detector import detector
    from qwenbox.gateway.redaction.patterns import BadPattern

    try:
        found = {
            name: Redactor(redaction.mode, detector(redaction), lets_pictures_pass=redaction.lets_pictures_pass)
            for name, redaction in wanted.items()
        }
        return {**{name: found[inner] for name, inner in around(config.engine).items() if inner in found}, **found}
    except BadPattern as error:
        raise ConfigError(f"The configuration is wrong: {error}.") from error
