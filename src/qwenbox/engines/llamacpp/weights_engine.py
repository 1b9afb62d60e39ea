"""This is where an engine over one GGUF file has its lanes: their children begin and end with it, and tell how it is."""

from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio

from qwenbox.engines.llamacpp.config import Lane, LlamaCppConfig, LlamaParts
from qwenbox.engines.llamacpp.lane import ChildLanes
from qwenbox.terms.engine import Health, HealthState
from qwenbox.terms.gauges import ChildState

W = TypeVar("W")


class WeightsEngine(Generic[W]):
    """What engines over a file share. W: the file as they read it, once, before their first answer.

    Build it inside the event loop and enter it before the first call; leaving it ends its children. In a worker the lanes are its
    parent's, and so are the children.
    """

    def __init__(self, config: LlamaCppConfig, parts: LlamaParts) -> None:
        self._config = config
        self._parts = parts
        self._weights: W | None = None
        self._reading = anyio.Lock()
        self._children: ChildLanes | None = None
        lanes = parts.lanes
        if lanes is None:
            lanes = self._children = ChildLanes(config, parts.title, parts.memory, parts.clock)
        self.shared: Lane = lanes.shared
        self.exact: Lane = lanes.exact

    async def __aenter__(self) -> Self:
        if self._children is not None:
            await self._children.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._children is not None:
            await self._children.__aexit__(kind, error, trace)

    def children(self) -> tuple[ChildState, ...]:
        return self._children.states() if self._children is not None else ()

    @property
    def is_here(self) -> bool:
        return self._weights is not None or self._parts.is_here()

    async def health(self) -> Health:
        state = await self.shared.state()
        if state is HealthState.READY:
            return Health(state=state)
        if state is HealthState.STARTING:
            return Health(state=state, detail="The weights are being loaded.")
        if not self._parts.is_here():
            return Health(state=HealthState.MISSING, detail=f"The weights are not here yet: qwenbox pull {self._config.weights}")
        return Health(state=HealthState.IDLE, detail="The first call loads the weights.")
