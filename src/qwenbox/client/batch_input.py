"""This is where an input of many prompts is read: JSONL, plain text, CSV or TSV → requests, or what is wrong in which line."""

import csv
import io
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from enum import StrEnum
from typing import BinaryIO

import msgspec

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
# What the service takes of one line, and of an id in it.
LINE_LIMIT_BYTES, ID_CHARACTERS = 6 * 1024 * 1024, 256
MOST_FAULTS = 20

# The column a prompt is in when nobody says, first come.
_COLUMNS = ("prompt", "text", "question", "input")
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_ENCODER = msgspec.json.Encoder()
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)


class Shape(StrEnum):
    JSONL = "jsonl"
    TEXT = "text"
    CSV = "csv"
    TSV = "tsv"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a line becomes a request. What a line says itself is never overridden.

    column: where the prompt is; "" finds one. template: a prompt with {names} of columns; "" is the column alone.
    endpoint: of lines that name none. extra: further fields of the body, as JSON.
    """

    model: str = ""
    column: str = ""
    template: str = ""
    system: str = ""
    endpoint: str = CHAT
    temperature: float | None = None
    max_tokens: int | None = None
    is_json: bool = False
    extra: dict[str, msgspec.Raw] = {}


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """One request. line: of the input, from 1. body: JSON. cells: the row it came from, () where the input is no table."""

    line: int
    custom_id: str
    endpoint: str
    model: str
    body: msgspec.Raw
    cells: tuple[str, ...] = ()

    def wire(self) -> bytes:
        """The line of a batch's file, without its end."""
        return _ENCODER.encode({"custom_id": self.custom_id, "method": "POST", "url": self.endpoint, "body": self.body})


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong. line: of the input, from 1; 0 is no line in particular. told: with {names} of `values`, so that it can be translated.

    missing: the field of a `Recipe` that would help, or "encoding".
    """

    line: int
    told: str
    values: dict[str, object] = {}
    missing: str = ""

    def __str__(self) -> str:
        text = self.told.format(**self.values)
        return f"line {self.line}: {text}" if self.line else text


class BadInput(Exception):
    """Nothing of it is sent. faults: the first few."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


class _Wrong(Exception):
    """One line cannot be a request."""

    def __init__(self, told: str, missing: str = "", **values: object) -> None:
        super().__init__(told)
        self.told = told
        self.missing = missing
        self.values = values

    def at(self, line: int) -> Fault:
        return Fault(line=line, told=self.told, values=self.values, missing=self.missing)


class Reading:
    """Iterate for the requests; afterwards `header` has the columns of a table. Raises BadInput, at the end of what it read."""

    def __init__(self, handle: BinaryIO, shape: Shape, encoding: str, recipe: Recipe) -> None:
        self.header: tuple[str, ...] = ()
        self._handle = handle
        self._shape = shape
        self._encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
        self._recipe = recipe
        self._faults: list[Fault] = []
        self._ids: dict[str, int] = {}
        self._line = 0

    def __iter__(self) -> Generator[Asked]:
        try:
            with io.TextIOWrapper(self._handle, self._encoding, newline="") as text:
                yield from self._table(text) if self._shape in (Shape.CSV, Shape.TSV) else self._lines(text)
        except UnicodeError as error:
            wrong = _Wrong(
                "near line {number}: this is no {encoding} text ({reason})",
                "encoding",
                number=self._line + 1,
                encoding=self._encoding.removesuffix("-sig"),
                reason=error,
            )
            self._faults.append(wrong.at(0))
        except csv.Error as error:
            self._faults.append(_Wrong("this is no table: {reason}", reason=error).at(self._line + 1))
        if not self._faults and not self._ids:
            self._faults.append(_Wrong("the input has no lines").at(0))
        if self._faults:
            raise BadInput(self._faults)

    def _lines(self, text: io.TextIOWrapper) -> Generator[Asked]:
        # Only line feeds end a line: other separators may be inside a JSON text.
        take = _from_json if self._shape is Shape.JSONL else _from_text
        for number, raw in enumerate(_split(text), 1):
            self._line = number
            line = raw.rstrip("\r\n").removeprefix("\ufeff")
            if line.strip():
                yield from self._taken(number, (), lambda line=line: take(line, self._recipe))

    def _table(self, text: io.TextIOWrapper) -> Generator[Asked]:
        csv.field_size_limit(LINE_LIMIT_BYTES)
        rows = csv.reader(text, delimiter="\t" if self._shape is Shape.TSV else ",", strict=True)
        self.header = tuple(name.removeprefix("\ufeff").strip() for name in next(rows, list[str]()))
        self._check_header()
        begins_at = rows.line_num + 1
        for row in rows:
            self._line, number, begins_at = rows.line_num, begins_at, rows.line_num + 1
            if any(cell.strip() for cell in row):
                cells = (*row, *([""] * (len(self.header) - len(row))))
                yield from self._taken(number, cells, lambda cells=cells: _from_cells(self.header, cells, self._recipe))

    def _check_header(self) -> None:
        twice = {name for name in self.header if self.header.count(name) > 1}
        if twice:
            raise BadInput([_Wrong("two columns are called {name!r}", name=min(twice)).at(1)])
        try:
            if self.header:
                _prompt(dict.fromkeys(self.header, ""), self._recipe)
        except _Wrong as error:
            raise BadInput([error.at(1)]) from error

    def _taken(self, number: int, cells: tuple[str, ...], take: Callable[[], "_Draft"]) -> Generator[Asked]:
        try:
            draft = take()
            custom_id = draft.custom_id if draft.custom_id is not None else str(number)
            if not 1 <= len(custom_id) <= ID_CHARACTERS:
                raise _Wrong("custom_id has 1 to {count} characters", count=ID_CHARACTERS)
            if custom_id in self._ids:
                raise _Wrong("custom_id {id!r} is in line {other}, too", id=custom_id, other=self._ids[custom_id])
            self._ids[custom_id] = number
            model, body = _filled(draft, self._recipe)
            asked = Asked(number, custom_id, draft.endpoint, model, msgspec.Raw(body), cells)
            if len(asked.wire()) > LINE_LIMIT_BYTES:
                raise _Wrong("the request is longer than {count} MB", count=LINE_LIMIT_BYTES // 1024**2)
        except _Wrong as error:
            self._faults.append(error.at(number))
            if len(self._faults) >= MOST_FAULTS:
                raise BadInput([*self._faults, _Wrong("… and maybe more").at(0)]) from error
        else:
            if not self._faults:
                yield asked


class _Draft(msgspec.Struct, frozen=True):
    """custom_id: None is the line's number. body: fields of the request as JSON."""

    custom_id: str | None
    endpoint: str
    body: Mapping[str, msgspec.Raw]


def sniffed(name: str, head: bytes) -> Shape:
    """What an input is, by its name's ending, else by its first bytes."""
    ending = name.lower().rpartition(".")[2] if "." in name else ""
    known = {"jsonl": Shape.JSONL, "ndjson": Shape.JSONL, "json": Shape.JSONL, "csv": Shape.CSV, "tsv": Shape.TSV, "txt": Shape.TEXT}
    if ending in known:
        return known[ending]
    return Shape.JSONL if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b'{"') else Shape.TEXT


def _split(text: io.TextIOWrapper) -> Iterable[str]:
    """Lines ended by a line feed alone."""
    rest = ""
    while piece := text.read(1024 * 1024):
        *whole, rest = (rest + piece).split("\n")
        yield from whole
    if rest:
        yield rest


def _from_text(line: str, recipe: Recipe) -> _Draft:
    prompt = _rendered(recipe.template, {"text": line, "line": line, "prompt": line}) if recipe.template else line
    return _Draft(None, recipe.endpoint, _asking(prompt, recipe.system, recipe))


def _from_cells(header: tuple[str, ...], cells: tuple[str, ...], recipe: Recipe) -> _Draft:
    if len(cells) > len(header):
        raise _Wrong("{cells} cells in a table of {columns} columns; is a quote missing?", cells=len(cells), columns=len(header))
    row = dict(zip(header, cells, strict=True))
    body = _asking(_prompt(row, recipe), row.get("system") or recipe.system, recipe)
    if row.get("model"):
        body["model"] = _raw(row["model"])
    return _Draft(row.get("custom_id") or None, recipe.endpoint, body)


def _from_json(line: str, recipe: Recipe) -> _Draft:
    text = line.strip()
    try:
        if not text.startswith("{"):
            return _bare(text, recipe)
        found = _OBJECT.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise _Wrong("this is no JSON object, text or list of messages: {reason}", reason=reason) from error
    custom_id = _string(found, "custom_id")
    if "body" in found and "messages" not in found:
        return _full(found, custom_id, recipe)
    rest = {name: value for name, value in found.items() if name != "custom_id"}
    if "messages" in rest or ("input" in rest and recipe.endpoint == EMBEDDINGS and not recipe.template):
        return _Draft(custom_id, recipe.endpoint, rest)
    if recipe.template or recipe.column:
        return _Draft(custom_id, recipe.endpoint, _asking(_prompt(_plain(rest), recipe), recipe.system, recipe))
    if "prompt" not in rest:
        raise _Wrong('neither "body" (a whole request), "messages" nor "prompt"', "column")
    if recipe.endpoint == COMPLETIONS:
        return _Draft(custom_id, recipe.endpoint, rest)
    prompt, system = _string(rest, "prompt"), _string(rest, "system") or recipe.system
    if prompt is None:
        raise _Wrong("prompt is null")
    others = {name: value for name, value in rest.items() if name not in ("prompt", "system")}
    return _Draft(custom_id, recipe.endpoint, {**_asking(prompt, system, recipe), **others})


def _bare(text: str, recipe: Recipe) -> _Draft:
    if text.startswith("["):
        return _Draft(None, recipe.endpoint, {"messages": msgspec.Raw(_ENCODER.encode(msgspec.json.decode(text)))})
    return _from_text(_TEXT.decode(text), recipe)


def _full(found: dict[str, msgspec.Raw], custom_id: str | None, recipe: Recipe) -> _Draft:
    method, url = _string(found, "method") or "POST", _string(found, "url") or recipe.endpoint
    if method != "POST":
        raise _Wrong("method is {method!r}; lines of a batch are POST", method=method)
    try:
        return _Draft(custom_id, url, _OBJECT.decode(found["body"]))
    except msgspec.DecodeError as error:
        raise _Wrong("body is no JSON object") from error


def _prompt(row: Mapping[str, str], recipe: Recipe) -> str:
    if recipe.template:
        return _rendered(recipe.template, row)
    if recipe.column:
        if recipe.column not in row:
            raise _Wrong("there is no column {name!r}; columns are {columns}", name=recipe.column, columns=", ".join(row))
        return row[recipe.column]
    name = next((name for name in _COLUMNS if name in row), next(iter(row)) if len(row) == 1 else None)
    if name is None:
        raise _Wrong("which column is the prompt? columns are {columns}", "column", columns=", ".join(row))
    return row[name]


def _rendered(template: str, row: Mapping[str, str]) -> str:
    """The template with {names} replaced; {{ and }} are braces."""

    def put(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0][0]
        if found[1] not in row:
            told = "the template names {name!r}, but there are {columns}; for braces write {{{{ and }}}}"
            raise _Wrong(told, name=found[1], columns=", ".join(row))
        return row[found[1]]

    return _FIELD.sub(put, template)


def _asking(prompt: str, system: str, recipe: Recipe) -> dict[str, msgspec.Raw]:
    """The body that asks it."""
    if not prompt.strip():
        raise _Wrong("the prompt is empty")
    if recipe.endpoint == COMPLETIONS:
        return {"prompt": _raw(prompt)}
    if recipe.endpoint == EMBEDDINGS:
        return {"input": _raw(prompt)}
    opening = [{"role": "system", "content": system}] if system else []
    return {"messages": _raw([*opening, {"role": "user", "content": prompt}])}


def _filled(draft: _Draft, recipe: Recipe) -> tuple[str, bytes]:
    """Model and body, with what the line leaves open."""
    given: dict[str, object] = {
        "model": recipe.model or None,
        "temperature": recipe.temperature,
        "max_tokens": recipe.max_tokens,
        "response_format": {"type": "json_object"} if recipe.is_json else None,
        **recipe.extra,
    }
    body = {**{name: value for name, value in given.items() if value is not None}, **draft.body}
    model = draft.body.get("model")
    name = _string(draft.body, "model") if model is not None else recipe.model
    if not name:
        raise _Wrong("it names no model", "model")
    return name, _ENCODER.encode(body)


def _string(fields: Mapping[str, msgspec.Raw], name: str) -> str | None:
    if name not in fields:
        return None
    try:
        value = msgspec.json.decode(fields[name])
    except msgspec.DecodeError as error:
        raise _Wrong("{name} is no valid JSON", name=name) from error
    if value is None or isinstance(value, str):
        return value
    # Ids are often numbers.
    if name == "custom_id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise _Wrong("{name} is no text", name=name)


def _plain(fields: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    """Values for a template: texts as they are, everything else as JSON."""
    decoded = {name: msgspec.json.decode(value) for name, value in fields.items()}
    return {name: value if isinstance(value, str) else bytes(fields[name]).decode() for name, value in decoded.items()}


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_ENCODER.encode(value))
