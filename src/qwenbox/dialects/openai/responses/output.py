"""This is where events of an engine become the items of a response, and the stream events that tell how each grew."""

from qwenbox.dialects.openai.responses.wire import (
    ArgumentsDelta,
    ArgumentsDone,
    CallItem,
    Event,
    ItemAdded,
    ItemDone,
    MessageItem,
    OutputItem,
    OutputText,
    PartAdded,
    PartDone,
    ReasoningItem,
    SummaryAdded,
    SummaryDone,
    SummaryText,
    SummaryTextDelta,
    SummaryTextDone,
    TextDelta,
    TextDone,
)
from qwenbox.terms.events import ChatEvent, ChoiceFinished, FinishReason, ReasoningDelta, ToolCallDelta
from qwenbox.terms.events import TextDelta as Said


class Output:
    """Items in the order they began. A text, a thought or a call ends where another begins, or with the answer."""

    def __init__(self, request_id: str) -> None:
        self.items: list[OutputItem] = []
        self._request_id = request_id
        self._pieces: list[str] = []
        self._calls: dict[int, int] = {}
        self._is_open = False

    def add(self, event: ChatEvent) -> list[Event]:
        """The stream events this one means."""
        match event:
            case Said():
                return self._say(event.text) if event.text else []
            case ReasoningDelta():
                return self._think(event.text) if event.text else []
            case ToolCallDelta():
                return self._call(event)
            case ChoiceFinished():
                begun = [] if self.items else self._begin_message()
                is_whole = event.reason in (FinishReason.STOP, FinishReason.TOOL_CALLS)
                return begun + self._close("completed" if is_whole else "incomplete")
            case _:
                return []

    def _say(self, text: str) -> list[Event]:
        begun = [] if self._is_open and isinstance(self.items[-1], MessageItem) else self._begin_message()
        self._pieces.append(text)
        index = len(self.items) - 1
        return [*begun, TextDelta(item_id=self.items[index].id, output_index=index, delta=text)]

    def _begin_message(self) -> list[Event]:
        item = MessageItem(id=self._id("msg"), status="in_progress", content=[])
        begun = self._begin(item)
        begun.append(PartAdded(item_id=item.id, output_index=len(self.items) - 1, part=OutputText(text="")))
        return begun

    def _think(self, text: str) -> list[Event]:
        begun: list[Event] = []
        if not (self._is_open and isinstance(self.items[-1], ReasoningItem)):
            item = ReasoningItem(id=self._id("rs"), status="in_progress", summary=[])
            begun = self._begin(item)
            begun.append(SummaryAdded(item_id=item.id, output_index=len(self.items) - 1, part=SummaryText(text="")))
        self._pieces.append(text)
        index = len(self.items) - 1
        return [*begun, SummaryTextDelta(item_id=self.items[index].id, output_index=index, delta=text)]

    def _call(self, event: ToolCallDelta) -> list[Event]:
        begun: list[Event] = []
        place = self._calls.get(event.call)
        if place is None:
            item = CallItem(id=self._id("fc"), status="in_progress", call_id=event.id, name=event.name, arguments="")
            begun = self._begin(item)
            place = self._calls[event.call] = len(self.items) - 1
        if not event.arguments:
            return begun
        item = self.items[place]
        if isinstance(item, CallItem) and not (self._is_open and place == len(self.items) - 1):
            # A call another one has interrupted: told by its place, and whole in the end.
            item.arguments += event.arguments
        else:
            self._pieces.append(event.arguments)
        return [*begun, ArgumentsDelta(item_id=item.id, output_index=place, delta=event.arguments)]

    def _begin(self, item: OutputItem) -> list[Event]:
        closed = self._close("completed")
        self.items.append(item)
        self._is_open = True
        return [*closed, ItemAdded(output_index=len(self.items) - 1, item=item)]

    def _close(self, status: str) -> list[Event]:
        if not self._is_open:
            return []
        self._is_open = False
        text = "".join(self._pieces)
        self._pieces.clear()
        index, item = len(self.items) - 1, self.items[-1]
        item.status = status
        done: list[Event]
        match item:
            case MessageItem():
                part = OutputText(text=text)
                item.content = [part]
                done = [TextDone(item_id=item.id, output_index=index, text=text), PartDone(item_id=item.id, output_index=index, part=part)]
            case ReasoningItem():
                summary = SummaryText(text=text)
                item.summary = [summary]
                done = [
                    SummaryTextDone(item_id=item.id, output_index=index, text=text),
                    SummaryDone(item_id=item.id, output_index=index, part=summary),
                ]
            case CallItem():
                item.arguments += text
                done = [ArgumentsDone(item_id=item.id, output_index=index, name=item.name, arguments=item.arguments)]
        return [*done, ItemDone(output_index=index, item=item)]

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._request_id}_{len(self.items)}"
