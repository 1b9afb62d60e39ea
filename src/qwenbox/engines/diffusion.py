"""This is where a local folder of diffusers weights becomes an engine that draws, by a child process that holds the pipeline.

The heavy libraries come with the extra qwenbox[images]; without them, or without the folder, the engine is MISSING and says what to do.
"""

import base64
import importlib.util
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

import anyio
import msgspec

from qwenbox.clock import Clock
from qwenbox.engines.child import Child, ChildCommand, ChildConfig
from qwenbox.engines.memory import MemoryBudget
from qwenbox.remote import Remote, RemoteRequest, Timeouts
from qwenbox.terms.chat import ChatRequest
from qwenbox.terms.completion import CompletionRequest
from qwenbox.terms.engine import Capacity, EngineFacts, Events, Health, HealthState
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, Completed, ImageMade, Started
from qwenbox.terms.gauges import ChildState
from qwenbox.terms.image import SERVICE_INPUT, SERVICE_PARAMETERS, ImageRequest
from qwenbox.terms.model import Capability
from qwenbox.terms.secret import Secret
from qwenbox.terms.usage import Usage

MODULE: Final = "qwenbox.children.diffusion"
LIBRARIES: Final = ("torch", "diffusers", "transformers", "PIL")
INSTALL: Final = "pip install 'qwenbox[images]'"
# Interpreter and libraries, beside the weights; measured 0.9 GB with torch for processors.
OVERHEAD_BYTES: Final = 1_000_000_000
# Loading reads every file once and may convert it; what is drawn lies beside the weights.
WEIGHTS_SHARE: Final = 1.5
_SEEDS: Final = 2**32
# Threads that spin at a barrier take the cores of everybody else (docs/engines.md, "Children that share cores"); nothing is ever fetched.
ENVIRONMENT: Final = {"GOMP_SPINCOUNT": "1000", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


class DiffusionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="diffusion"):
    """One diffusers pipeline from a folder of this machine (with a model_index.json), drawn by a child of its own.

    folder: never fetched. weights: their title for people, "" takes the folder's name. steps, guidance: where a caller says none, None is
    the pipeline's own. device, dtype: as torch names them, "" takes a GPU with bfloat16 if there is one, else the processor with float32.
    threads: 0 leaves it to torch.
    idle_unload_s: the child ends when nobody has asked for so long. timeouts: first_byte_s is the longest wait for the first step.
    """

    folder: str
    weights: str = ""
    steps: int | None = None
    guidance: float | None = None
    device: str = ""
    dtype: str = ""
    threads: int = 0
    idle_unload_s: float = 900.0
    child: ChildConfig = ChildConfig(ready_s=900.0)
    timeouts: Timeouts = Timeouts(first_byte_s=1_800.0, between_bytes_s=1_800.0)

    def __post_init__(self) -> None:
        if not self.folder:
            raise ValueError("folder must name a folder with a model_index.json")
        if self.dtype not in ("", "float32", "float16", "bfloat16"):
            raise ValueError("dtype must be float32, float16 or bfloat16")
        if (self.steps is not None and self.steps < 1) or self.threads < 0 or self.idle_unload_s <= 0:
            raise ValueError("steps must be at least 1, threads at least 0, idle_unload_s more than 0")


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The line the child reads; fields as in children/diffusion.py."""

    parent_pid: int
    folder: str
    key: str
    device: str
    dtype: str
    threads: int


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    """One picture; fields as in children/diffusion.py."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    seed: int
    steps: int | None
    guidance: float | None
    has_watermark: bool


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """What the child says."""

    step: int = 0
    of: int = 0
    image: str = ""
    error: str = ""
    is_wish: bool = False


_LINE = msgspec.json.Decoder(_Line)


class Diffusion:
    """An ImageMaker. Build and enter it inside the event loop; leaving ends its child."""

    def __init__(self, config: DiffusionConfig, remote: Remote, memory: MemoryBudget, clock: Clock) -> None:
        self._config = config
        self._folder = Path(config.folder).expanduser()
        self._title = config.weights or self._folder.name
        self._remote = remote
        self._memory = memory
        self._clock = clock
        self._tasks = anyio.create_task_group()
        command = ChildCommand(name=self._title, module=MODULE, environment=ENVIRONMENT)
        self._child = Child(command, config.child, self._tasks, clock)
        self._key = Secret("")
        self._loading = anyio.Lock()
        self._users = 0
        self._last_used_s = clock.monotonic()
        self._progress = ""

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._unload_when_idle)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with anyio.CancelScope(shield=True):
            await self._child.stop()
        self._memory.release(self)
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)  # with the error it would come out wrapped in a group

    @property
    def facts(self) -> EngineFacts:
        return EngineFacts(
            kind="diffusion",
            weights=self._title,
            identity=f"diffusion {self._folder} {self._config.steps} {self._config.guidance}",
            keeps_seeds=True,
            capabilities=frozenset({Capability.IMAGE}),
        )

    @property
    def capacity(self) -> Capacity:
        """One call at a time, whatever it asks for: more would share the same cores."""
        return Capacity(slots=1)

    async def health(self) -> Health:
        if missing := self._missing():
            return Health(state=HealthState.MISSING, detail=missing)
        if self._child.is_ready:
            return Health(state=HealthState.READY, detail=self._progress)
        return Health(state=HealthState.STARTING if self._child.is_starting else HealthState.IDLE)

    def chat(self, request: ChatRequest) -> Events:
        self._refuse(request.model)

    def complete(self, request: CompletionRequest) -> Events:
        self._refuse(request.model)

    @asynccontextmanager
    async def make(self, request: ImageRequest) -> AsyncGenerator[AsyncIterator[ChatEvent]]:
        """Raises ApiError(INVALID_REQUEST) for what a pipeline cannot honour, ENGINE_FAILED when it fails or is not here."""
        self._check(request)
        self._users += 1
        try:
            address = await self._ready()
            events = self._draw(address, request)
            try:
                yield events
            finally:
                await events.aclose()
        finally:
            self._users -= 1
            self._progress = ""
            self._last_used_s = self._clock.monotonic()

    @property
    def pid(self) -> int | None:
        return self._child.pid

    def children(self) -> tuple[ChildState, ...]:
        return (self._child.state("diffusion"),)

    @property
    def log(self) -> str:
        return self._child.log

    @property
    def is_idle(self) -> bool:
        return self._users == 0

    @property
    def last_used_s(self) -> float:
        return self._last_used_s

    async def warm(self) -> None:
        """Load the pipeline now instead of on the first call. Raises ApiError like `make`."""
        self._users += 1
        try:
            await self._ready()
        finally:
            self._users -= 1
            self._last_used_s = self._clock.monotonic()

    async def unload(self) -> bool:
        if self._users or self._loading.locked():
            return False
        async with self._loading:
            await self._child.stop()
            self._memory.release(self)
        return True

    async def _draw(self, address: str, request: ImageRequest) -> AsyncGenerator[ChatEvent]:
        yield Started(input_tokens=0)
        # Said once for the whole call, so that its pictures count on from each other.
        first = secrets.randbelow(_SEEDS) if request.seed is None else request.seed
        width, height = request.width or 0, request.height or 0
        for index in range(request.n):
            wish = _Wish(
                prompt=request.prompt,
                negative_prompt=request.negative_prompt,
                width=width,
                height=height,
                seed=(first + index) % 2**63,
                steps=request.steps or self._config.steps,
                guidance=self._config.guidance if request.guidance is None else request.guidance,
                has_watermark=request.has_watermark,
            )
            data = await self._picture(address, wish, f"picture {index + 1} of {request.n}")
            yield ImageMade(index=index, data=data, media_type="image/png", width=width, height=height)
        yield Completed(usage=Usage(input_tokens=0, output_tokens=request.n))

    async def _picture(self, address: str, wish: _Wish, place: str) -> bytes:
        headers = {"authorization": f"Bearer {self._key.reveal()}", "content-type": "application/json"}
        sent = RemoteRequest(
            method="POST", url=f"{address}/draw", body=msgspec.json.encode(wish), headers=headers, timeouts=self._config.timeouts
        )
        rest = b""
        async with self._remote.stream(sent) as answer:
            if answer.status != 200:
                raise ApiError(ErrorKind.ENGINE_FAILED, f"The engine of {self._title} answers with status {answer.status}.")
            async for chunk in answer:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    said = _LINE.decode(line)
                    if said.image:
                        return base64.b64decode(said.image)
                    if said.error:
                        raise self._failure(said)
                    self._progress = f"Drawing {place}: step {said.step} of {said.of}."
        raise ApiError(ErrorKind.ENGINE_FAILED, f"The engine of {self._title} broke off in the middle of a picture; its log says why.")

    def _failure(self, said: _Line) -> ApiError:
        if said.is_wish:
            return ApiError(ErrorKind.INVALID_REQUEST, said.error)
        return ApiError(ErrorKind.ENGINE_FAILED, f"The engine of {self._title} failed ({said.error}); its log says why.")

    async def _ready(self) -> str:
        if missing := self._missing():
            raise ApiError(ErrorKind.MODEL_NOT_FOUND, missing)
        async with self._loading:
            if not self._child.is_ready:
                await self._memory.claim(self, OVERHEAD_BYTES + int(_size_bytes(self._folder) * WEIGHTS_SHARE), {})
            return (await self._child.ready(self._settings)).address

    def _settings(self) -> bytes:
        self._key = Secret(secrets.token_urlsafe(32))
        config = self._config
        return msgspec.json.encode(
            _Settings(
                parent_pid=os.getpid(),
                folder=str(self._folder.resolve()),
                key=self._key.reveal(),
                device=config.device,
                dtype=config.dtype,
                threads=config.threads,
            )
        )

    def _missing(self) -> str:
        """What is not here, and what to do; "" when all is."""
        if lacking := [name for name in LIBRARIES if importlib.util.find_spec(name) is None]:
            return f"{self._title} needs {', '.join(lacking)}: {INSTALL} and start the box again."
        if not (self._folder / "model_index.json").is_file():
            return f"{self._title} is not here: put a diffusers pipeline (with its model_index.json) where [engine] folder says."
        return ""

    def _check(self, request: ImageRequest) -> None:
        for is_there, what in (
            (bool(request.images), "pictures to draw from"),
            (bool(request.style), "style: say it in the prompt"),
            (SERVICE_INPUT in request.extensions, "function and masks, which only the service's own models know"),
            (SERVICE_PARAMETERS in request.extensions, "parameters that only the service's own models know"),
        ):
            if is_there:
                raise ApiError(ErrorKind.INVALID_REQUEST, f"The model {request.model} does not understand {what}.", param="input")

    def _refuse(self, model: str) -> NoReturn:
        raise ApiError(ErrorKind.WRONG_ENDPOINT, param=model)

    async def _unload_when_idle(self) -> None:
        while True:
            left_s = self._last_used_s + self._config.idle_unload_s - self._clock.monotonic()
            if left_s <= 0:
                await self.unload()
            await self._clock.sleep(max(left_s, 0.1 * self._config.idle_unload_s, 0.01))


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix == ".safetensors")
