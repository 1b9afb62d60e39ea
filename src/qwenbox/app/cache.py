"""This is where the response cache is opened, on what all processes of a box share: its database, or Valkey."""

from contextlib import AsyncExitStack

import msgspec

from qwenbox.app.office import Office
from qwenbox.config import Config, ConfigError
from qwenbox.gateway.cache.base import Shelf
from qwenbox.gateway.cache.cache import Cache
from qwenbox.gateway.cache.database import DatabaseShelf
from qwenbox.gateway.cache.valkey import SCRIPTS, ValkeyShelf
from qwenbox.gateway.settings import Settings
from qwenbox.valkey.store import Store, StoreRefused, open_store


async def open_cache(stack: AsyncExitStack, config: Config, office: Office) -> Cache:
    """A running box's."""
    # A connection of its own: counters must not wait behind large answers.
    store = await stack.enter_async_context(open_store(config.valkey, SCRIPTS)) if config.valkey.url.reveal() else None
    return _cache(config, office, store)


def cache_beside(config: Config, office: Office) -> Cache:
    """The same without a box. Valkey, where there is one, is reached once it is asked."""
    try:
        store = Store(config.valkey, SCRIPTS) if config.valkey.url.reveal() else None
    except StoreRefused as error:
        raise ConfigError(str(error)) from error
    return _cache(config, office, store)


def _cache(config: Config, office: Office, store: Store | None) -> Cache:
    # Where calls fail by lot, each has its own: a kept answer would draw none.
    own = msgspec.structs.replace(config.cache, enabled=False) if config.faults.share or config.tape.file else config.cache
    shelf: Shelf = DatabaseShelf(office.database, own, office.clock)
    if store is not None:
        shelf = ValkeyShelf(store, config.valkey.prefix, own, office.clock)
    return Cache(own, shelf, Settings(office.database), office.clock)
