"""This is where a visitor's file is read before it is sent: which batches it makes, roughly what they cost, or what is wrong."""

import csv
import io
import tempfile
from typing import BinaryIO

import msgspec

from qwenbox.client.batch_input import Asked, BadInput, Fault, Reading, Recipe, Shape
from qwenbox.client.catalog import Model

# What the service takes of one batch, and how many batches one file may become here.
MOST_LINES, MOST_BYTES, MOST_PARTS = 50_000, 500_000_000, 20
# Of Qwen's vocabulary: letters of a token in Latin script, tokens of a Chinese character, and what a template puts around a message.
_LATIN_PER_TOKEN, _TOKENS_PER_OTHER, _TOKENS_AROUND = 4.0, 0.65, 8


class Part:
    """One batch to be: requests of one endpoint and model, as they will be uploaded; in a file without a name, gone once it is closed."""

    def __init__(self, endpoint: str, model: str) -> None:
        self.endpoint = endpoint
        self.model = model
        self.lines = 0
        self.size_bytes = 0
        self.handle: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 (closed by Checked.close)

    def put(self, line: bytes) -> None:
        self.handle.write(line + b"\n")
        self.lines += 1
        self.size_bytes += len(line) + 1

    def has_room(self, line: bytes) -> bool:
        return self.lines < MOST_LINES and self.size_bytes + len(line) < MOST_BYTES


class Checked:
    """What a file holds. faults: nothing can be sent while there are any. Close it, for its files.

    input_tokens: roughly, by letters; answer_tokens: the most that may come, where every request says how long its answer may be.
    examples: the first requests.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.sent = 0
        self.faults: list[Fault] = []
        self.input_tokens: dict[str, float] = {}
        self.answer_tokens: dict[str, int | None] = {}
        self.examples: list[Asked] = []

    @property
    def count(self) -> int:
        """Batches, those that were sent included."""
        return self.sent + len(self.parts)

    def was_sent(self, part: Part) -> None:
        part.handle.close()
        self.parts.remove(part)
        self.sent += 1

    @property
    def total(self) -> int:
        return sum(part.lines for part in self.parts)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(part.model for part in self.parts))

    def close(self) -> None:
        for part in self.parts:
            part.handle.close()
        self.parts.clear()


def check(handle: BinaryIO, shape: Shape, encoding: str, recipe: Recipe) -> Checked:
    """Read all of it, in the memory of a line and of the ids. It closes the handle."""
    checked = Checked()
    latest: dict[tuple[str, str], Part] = {}
    try:
        for asked in Reading(handle, shape, encoding, recipe):
            line, place = asked.wire(), (asked.endpoint, asked.model)
            part = latest.get(place)
            if part is None or not part.has_room(line):
                if len(checked.parts) >= MOST_PARTS:
                    told = "the file would become more than {count} batches: one for each model and {lines} requests"
                    raise BadInput([Fault(line=asked.line, told=told, values={"count": MOST_PARTS, "lines": MOST_LINES})])
                part = latest[place] = Part(*place)
                checked.parts.append(part)
            part.put(line)
            _estimate(checked, asked)
            if len(checked.examples) < 3:
                checked.examples.append(asked)
    except BadInput as error:
        checked.close()
        checked.faults = error.faults
    return checked


def columns(head: bytes, shape: Shape, encoding: str) -> list[str]:
    """Of a table, by its first bytes; what cannot be read has none, and `check` says why."""
    text = io.StringIO(head.decode(encoding, "replace").removeprefix("\ufeff"), newline="")
    try:
        return [name.strip() for name in next(csv.reader(text, delimiter="\t" if shape is Shape.TSV else ","), list[str]())]
    except csv.Error:
        return []


class _Piece(msgspec.Struct, frozen=True):
    text: str = ""


class _Message(msgspec.Struct, frozen=True):
    content: str | tuple[_Piece, ...] | None = None


class _Body(msgspec.Struct, frozen=True):
    """As far as it has letters that are read, and says how many may be written."""

    messages: tuple[_Message, ...] = ()
    prompt: str | tuple[str, ...] = ""
    input: str | tuple[str, ...] = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_BODY = msgspec.json.Decoder(_Body)


def _estimate(checked: Checked, asked: Asked) -> None:
    model = asked.model
    try:
        body = _BODY.decode(asked.body)
    except msgspec.DecodeError:
        body = _Body()  # the box says what is wrong with such a request; it costs nothing
    texts = [body.prompt, body.input]
    for message in body.messages:
        content = message.content or ""
        texts.append(content if isinstance(content, str) else tuple(piece.text for piece in content))
    tokens = sum(_tokens(text) if isinstance(text, str) else sum(map(_tokens, text)) for text in texts)
    checked.input_tokens[model] = checked.input_tokens.get(model, 0.0) + tokens + _TOKENS_AROUND
    most, before = body.max_tokens or body.max_completion_tokens, checked.answer_tokens.get(model, 0)
    checked.answer_tokens[model] = None if most is None or before is None else before + most


def _tokens(text: str) -> float:
    latin = len(text.encode("ascii", "ignore"))
    return latin / _LATIN_PER_TOKEN + (len(text) - latin) * _TOKENS_PER_OTHER


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """In millionths of the currency, roughly. most: with the longest answers, None where they have no end."""

    input: int
    most: int | None
    currency: str


def cost(checked: Checked, models: dict[str, Model]) -> Cost | None:
    """At the prices of batches; None where a model has none. models: by name and alias."""
    sent, most, currency = 0.0, 0.0, ""
    is_bounded = True
    for name, tokens in checked.input_tokens.items():
        model = models.get(name) or models.get("*")
        if model is None or model.price is None or not model.price.tiers:
            return None
        price = model.price
        tier, share, currency = price.tiers[0], price.batch_permille / 1_000 / 1_000_000, price.currency
        sent += tokens * tier.input_micros * share
        answers = checked.answer_tokens[name]
        is_bounded = is_bounded and answers is not None
        most += (answers or 0) * tier.output_micros * share
    return Cost(input=round(sent), most=round(sent + most) if is_bounded else None, currency=currency)
