"""This is where one answer is asked for and heard: what came so far, what it took, how it ended. Nothing here knows a page."""

import time
from collections.abc import Callable

import anyio
import msgspec

from qwenbox.client.chat import ChatClient, Refused, open_chat
from qwenbox.client.usage import Receipt
from qwenbox.console.house import House
from qwenbox.console.pages.playground.request import Body, Call
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.events import ChatEvent, ChoiceFinished, Completed, ReasoningDelta, TextDelta, ToolCallDelta
from qwenbox.terms.usage import Usage

# A hung-up call is written once the box has noticed.
_RECEIPT_WITHIN_S = 5.0
_RECEIPT_EVERY_S = 0.1


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong. code: as a program would see it."""

    message: str
    code: str
    retry_after_s: float | None = None


class Hearing:
    """One answer while it comes, and after. Times are of this process's monotonic clock."""

    def __init__(self, model: str, now: Callable[[], float] = time.monotonic) -> None:
        self.model = model
        self.request_id = ""
        self.reason = ""
        self.usage: Usage | None = None
        self.receipt: Receipt | None = None
        self.trouble: Trouble | None = None
        self.is_over = False
        self.was_stopped = False
        self.tokens = 0
        self._now = now
        self._begun = now()
        self._first: float | None = None
        self._last = self._begun
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, Call] = {}
        self._scope: anyio.CancelScope | None = None

    @property
    def text(self) -> str:
        """All that came so far."""
        self._text = ["".join(self._text)]
        return self._text[0]

    @property
    def reasoning(self) -> str:
        self._reasoning = ["".join(self._reasoning)]
        return self._reasoning[0]

    @property
    def calls(self) -> list[Call]:
        return [call for _, call in sorted(self._calls.items())]

    @property
    def is_begun(self) -> bool:
        return self._first is not None

    @property
    def waited_s(self) -> float:
        return self._now() - self._begun

    @property
    def ttft_s(self) -> float | None:
        """As the box measured it, else as it was seen here."""
        if self.receipt is not None and self.receipt.call.ttft_s is not None:
            return self.receipt.call.ttft_s
        return None if self._first is None else self._first - self._begun

    @property
    def tokens_s(self) -> float | None:
        """Output tokens after the first in a second; None where there are too few to say."""
        count = self.usage.output_tokens if self.usage else self.tokens
        took = 0.0 if self._first is None else self._last - self._first
        if self.receipt is not None and self.receipt.call.ttft_s is not None:
            count, took = self.receipt.call.output_tokens, self.receipt.call.duration_s - self.receipt.call.ttft_s
        return (count - 1) / took if count > 2 and took > 0.001 else None

    def stop(self) -> None:
        """Hang up."""
        if self._scope is not None and not self.is_over:
            self.was_stopped = True
            self._scope.cancel()

    async def listen(self, house: House, account: str, asked: Body) -> None:
        """Ask, and hear it to its end, whatever that is. account: who pays, by name; "" as OwnKeys has it."""
        with anyio.CancelScope() as self._scope:
            try:
                await self._listen(house, account, asked)
            except Refused as error:
                self.request_id = error.request_id
                self.trouble = Trouble(message=error.message, code=f"{error.code or error.kind.value} · HTTP {error.status}")
            except ApiError as error:
                self.trouble = Trouble(message=error.message or error.kind.value, code=error.kind.value)
        if self.request_id:
            await self._ask_receipt(house)
        self.is_over = True

    async def _listen(self, house: House, account: str, asked: Body) -> None:
        body = msgspec.json.encode(asked)
        key = await house.own_keys.key(account)
        try:
            async with open_chat(house.box, key) as client:
                await self._hear(client, body)
        except Refused as error:
            if error.kind is not ErrorKind.UNAUTHENTICATED:
                raise
            # Somebody revoked our key.
            house.own_keys.forget(key)
            async with open_chat(house.box, await house.own_keys.key(account)) as client:
                await self._hear(client, body)

    async def _hear(self, client: ChatClient, body: bytes) -> None:
        async with client.chat(body) as answer:
            self.request_id = answer.request_id
            async for event in answer.events:
                self.add(event)

    def add(self, event: ChatEvent) -> None:
        match event:
            case TextDelta():
                self._text.append(event.text)
                self._count(event.tokens)
            case ReasoningDelta():
                self._reasoning.append(event.text)
                self._count(event.tokens)
            case ToolCallDelta():
                call = self._calls.setdefault(event.call, Call(id="", name="", arguments=""))
                call.id, call.name = call.id or event.id, call.name or event.name
                call.arguments += event.arguments
                self._count(event.tokens)
            case ChoiceFinished():
                self.reason = event.reason.value
            case Completed():
                self.usage = event.usage
            case _:
                pass

    def _count(self, tokens: int) -> None:
        self._last = self._now()
        self._first = self._last if self._first is None else self._first
        self.tokens += tokens

    async def _ask_receipt(self, house: House) -> None:
        """What it cost; a call that was refused has none."""
        with anyio.move_on_after(_RECEIPT_WITHIN_S if self.was_stopped else 1.0):
            while self.receipt is None:
                try:
                    self.receipt = await house.admin.receipt(self.request_id)
                except ApiError as error:
                    if error.kind is not ErrorKind.NOT_FOUND or self.trouble is not None:
                        return
                    await anyio.sleep(_RECEIPT_EVERY_S)
