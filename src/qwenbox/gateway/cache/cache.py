"""This is where answers are kept and given again: which calls it has a part in, what is at hand, and who must ask an engine.

docs/practices/cache.md tells the rules.
"""

from collections.abc import Hashable
from contextlib import suppress

import anyio
import msgspec

from qwenbox.clock import Clock
from qwenbox.gateway.admission import billed_name
from qwenbox.gateway.cache.base import Item, Recorded, Shelf, ShelfState, pack
from qwenbox.gateway.cache.config import CacheConfig
from qwenbox.gateway.cache.flights import Flights
from qwenbox.gateway.cache.key import Names, is_wanted
from qwenbox.gateway.cache.memory import Memory
from qwenbox.gateway.catalog import Model, TextRequest
from qwenbox.gateway.settings import Settings
from qwenbox.terms.call import AnyCall
from qwenbox.terms.errors import ApiError
from qwenbox.terms.events import ChoiceFinished, FinishReason
from qwenbox.terms.wishes import CacheWish

# Counts purges, so that every process notices them.
_PURGES = "cache_purges"
_LOOK_S = 1.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the cache will do for one call. keys: of the answers it may have, best first; at least one.

    flight: calls with the same one may share an answer that is under way: they want the same, as soon, and as patiently.
    """

    keys: tuple[str, ...]
    flight: Hashable
    wish: CacheWish


class Cache:
    """Its memory in front of the shelf that all processes share."""

    def __init__(self, config: CacheConfig, shelf: Shelf, settings: Settings, clock: Clock) -> None:
        self.config = config
        self.flights = Flights()
        self._shelf = shelf
        self._settings = settings
        self._clock = clock
        self._memory = Memory(config.memory_bytes)
        self._names = Names(config.scope)
        self._purges: str | None = None

    @property
    def shelf_name(self) -> str:
        return self._shelf.name

    def plan(self, call: AnyCall, model: Model, request: TextRequest) -> Plan | None:
        """None where the cache has no part in the call. request: complete, but not yet cut to what the prompt leaves."""
        if not self.config.enabled or not is_wanted(request, call.caller.cache) or call.wishes.provoke or not model.deployments:
            return None
        keys = self._names.keys(call.caller, model, request)
        if not keys:
            return None
        return Plan(keys=keys, flight=(keys, call.lane, call.wishes.patience), wish=call.wishes.cache)

    def at_hand(self, plan: Plan) -> Item | None:
        """The answer if this process has it and the caller may have it."""
        for key in plan.keys:
            item = self._memory.find(key)
            if item is not None and self._age_s(item) >= self.config.ttl_s:
                self._memory.drop(key)
            elif item is not None and self.suits(plan, item):
                self._shelf.touch(key)
                return item
        return None

    def suits(self, plan: Plan, item: Item) -> bool:
        """Whether it is young enough for this caller."""
        return plan.wish.max_age_s is None or self._age_s(item) <= plan.wish.max_age_s

    async def find(self, plan: Plan) -> Item | None:
        """The answer on the shelf, which is at hand from now on, and may still be too old for this caller; None: there is none."""
        unsuited: Item | None = None
        for key in plan.keys:
            item = await self._shelf.find(key)
            if item is None or self._age_s(item) >= self.config.ttl_s:
                continue
            self._memory.keep(item)
            if self.suits(plan, item):
                return item
            unsuited = item
        return unsuited

    def keep(self, call: AnyCall, model: Model, request: TextRequest, recorded: Recorded) -> None:
        """Of a complete answer, under the name of the deployment that gave it. One whose content was filtered is not kept, nor one that
        is too large."""
        if any(isinstance(event, ChoiceFinished) and event.reason is FinishReason.CONTENT_FILTER for event in recorded.events):
            return
        deployment = next((one for one in model.deployments if one.name == recorded.deployment), None)
        key = None if deployment is None else self._names.key(call.caller, model, deployment, request)
        data = pack(recorded)
        if key is None or len(data) > self.config.max_answer_bytes:
            return
        item = Item(key=key, account_id=call.caller.account_id, model=billed_name(model, request), stored_at=self._clock.now(), data=data)
        self._memory.keep(item)
        self._shelf.keep(item)

    async def purge(self, account_id: str | None = None, model: str | None = None) -> int:
        """Forget answers everywhere; other processes follow within a second. Raises ApiError(OVERLOADED)."""
        count = await self._shelf.purge(account_id, model)
        self._memory.clear()
        await self._settings.add(_PURGES, 1)
        return count

    async def state(self) -> ShelfState:
        """Of the shelf. Raises ApiError(OVERLOADED)."""
        return await self._shelf.state()

    async def follow(self) -> None:
        """Everything that goes on beside the calls, for as long as the box runs."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._shelf.follow)
            group.start_soon(self.flights.follow)
            while True:
                with suppress(ApiError):
                    await self._notice()
                await anyio.sleep(_LOOK_S)

    async def _notice(self) -> None:
        purges = await self._settings.get(_PURGES) or ""
        if self._purges is not None and purges != self._purges:
            self._memory.clear()
        self._purges = purges

    def _age_s(self, item: Item) -> float:
        return self._clock.now() - item.stored_at
