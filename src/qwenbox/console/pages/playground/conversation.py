"""This is where a conversation is kept, as long as its tab is open: questions, and the answers of one model or of two beside each other."""

from collections.abc import Iterable

from qwenbox.console.pages.playground.asking import Hearing
from qwenbox.console.pages.playground.request import Question, Reply, Turn

SIDES = (0, 1)


class Step:
    """One reply of a model. hearing: how it came; reply: what it is, as a visitor may have rewritten it."""

    def __init__(self, hearing: Hearing) -> None:
        self.hearing = hearing
        self.reply = Reply()

    @property
    def is_waiting(self) -> bool:
        """Tools were called whose results are still to be said."""
        return any(call.result is None for call in self.reply.calls)

    def settle(self) -> None:
        """What was heard becomes part of the conversation."""
        calls = self.hearing.calls if self.hearing.reason == "tool_calls" else []
        self.reply = Reply(text=self.hearing.text, calls=calls)

    def rewrite(self, text: str) -> None:
        self.reply.text = text


class Exchange:
    """A question, and for each side the steps of its answer: more than one where tools were called."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.steps: tuple[list[Step], list[Step]] = ([], [])

    def turns(self, side: int) -> list[Turn]:
        """As that side remembers it; where it was not there yet, the other's answer."""
        return self.own_turns(side if self.steps[side] else 0)

    def own_turns(self, side: int) -> list[Turn]:
        """The question, and what that side has said to it. Calls without results are left out: no model could go on from them."""
        replies = [step.reply for step in self.steps[side] if step.reply.text or step.reply.calls]
        return [self.question, *(reply for reply in replies if all(call.result is not None for call in reply.calls))]


class Conversation:
    """Exchanges in order."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def turns(self, side: int) -> list[Turn]:
        return [turn for exchange in self.exchanges for turn in exchange.turns(side)]

    def before(self, exchange: Exchange) -> Iterable[Exchange]:
        return self.exchanges[: self.exchanges.index(exchange)]

    @property
    def running(self) -> list[Hearing]:
        steps = (step for exchange in self.exchanges for side in exchange.steps for step in side)
        return [step.hearing for step in steps if not step.hearing.is_over]

    def stop(self) -> None:
        for hearing in self.running:
            hearing.stop()
