"""This is where shapes become a Lark grammar for LLGuidance: JSON text that always ends, on one line, `", "` and `": "` between.

Every place gets a budget of tokens and divides it among what it holds; what the schema leaves unbounded is bounded by it.
Budgets are a few fixed levels, so that one rule per (place, level) is enough and recursive schemas end.
"""

import json
from decimal import Decimal
from math import ceil

from qwenbox.engines.constraints.kinds import ANYTHING, Array, Literals, Number, Object, Place, Shape, Text, refuse
from qwenbox.engines.constraints.matching import is_possible
from qwenbox.engines.constraints.numbers import multiples, number
from qwenbox.engines.constraints.patterns import ANY_CHAR, CHAR, Node, Unsupported, bounded, parse, shortest, written
from qwenbox.engines.constraints.shapes import Shapes
from qwenbox.engines.constraints.weights import Weights, key_weight
from qwenbox.terms.schemas import Document

LEVELS = (6, 9, 14, 20, 30, 45, 68, 100, 150, 225, 340, 510, 760, 1140, 1700, 2560, 3840, 5760)
CHARS_PER_TOKEN = 2.5
SPARE_CHARS = 120  # most texts end by themselves; the bound is for those that never would
SPARE_ITEMS = 3  # … and so do most lists: an item may take three times its even share
STEP = 0.67  # what is inside gets a lower level than what it is in
MAX_CHARS = 8_000
MAX_ITEMS = 64
MAX_LEAST = 1_000
MAX_RULES = 10_000
MAX_STACK = 60
MAX_UNIQUE = 24
KEY_CHARS = 32
LOOK_CHARS = 64
KEY = r'([^"\\\x00-\x1f\x7f-\x9f\x{2028}\x{2029}])'


class Grammar:
    """Collects rules; `rule` names the one for a document's whole value."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def add(self, body: str) -> str:
        """A rule with this body; equal bodies are one rule."""
        return self._names.setdefault(body, f"r{len(self._names)}")

    def add_terminal(self, body: str) -> str:
        return self._names.setdefault(body, f"T{len(self._names)}")

    def text(self, start: str) -> str:
        """The whole grammar. start: the body of its start rule."""
        lines = ["%llguidance {}", f"start: {start}", *(f"{name}: {body}" for body, name in self._names.items())]
        return "\n".join(lines) + "\n"

    @property
    def size(self) -> int:
        return len(self._names)


def literal(text: str) -> str:
    """Exactly this text, as Lark says it."""
    return json.dumps(text, ensure_ascii=False)


class Values:
    """Rules for the values of one document. budget: tokens the value may take, about."""

    def __init__(self, grammar: Grammar, document: Document, param: str, *, is_closed: bool = False) -> None:
        self._grammar = grammar
        self._param = param
        self._shapes = Shapes(document, param, is_closed=is_closed)
        self._weights = Weights(self._shapes)
        self._known: dict[tuple[Place, int, str | None], str] = {}
        self._open: list[tuple[Place, int, str | None]] = []
        self._steps = 0

    def root(self, budget: float, only: type[Shape] | None = None) -> str:
        """The name of the rule for the whole value. Raises ApiError when no finite value satisfies the schema."""
        rule = self._rule(("",), budget, only=only)
        if rule is None:
            raise refuse(self._param, "$schema", "no JSON of bounded size satisfies it")
        return rule

    def _rule(self, place: Place, budget: float, *, only: type[Shape] | None = None) -> str | None:
        """None: no value there. While a place is open inside itself at the lowest level, it has none (recursion ends)."""
        place = self._shapes.resolved(place)
        level = max((level for level in LEVELS if level <= budget), default=LEVELS[0])
        key = (place, level, only.__name__ if only else None)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            return None
        self._steps += 1
        if len(self._open) > MAX_STACK or self._grammar.size > MAX_RULES or self._steps > 4 * MAX_RULES:
            raise refuse(self._param, "$ref", "the schema unfolds to too many parts")
        self._open.append(key)
        bodies = [self._body(shape, level) for shape in self._shapes.of(place) if only is None or isinstance(shape, only)]
        self._open.pop()
        found = list(dict.fromkeys(body for body in bodies if body is not None))
        if not found:
            return None
        self._known[key] = self._grammar.add(" | ".join(found))
        return self._known[key]

    def _body(self, shape: Shape, level: int) -> str | None:
        match shape:
            case Literals():
                return " | ".join(literal(value) for value in shape.values) or None
            case Text():
                return self._text(shape, int(level * CHARS_PER_TOKEN) + (SPARE_CHARS if level > LEVELS[2] else 0))
            case Number():
                return self._number(shape, level)
            case Array():
                return self._array(shape, level)
            case Object():
                return self._object(shape, level) if shape.extra is None else self._map(shape, shape.extra, level)

    def _text(self, shape: Text, chars: int) -> str | None:
        if shape.least > MAX_CHARS:
            raise refuse(self._param, "minLength", f"at most {MAX_CHARS} can be demanded")
        chars = max(min(chars, MAX_CHARS), 12)
        body = self._inside(shape, chars)
        return self._grammar.add_terminal(body) if body else None

    def _inside(self, shape: Text, chars: int) -> str | None:
        """A text with its quotes, as a terminal."""
        if not shape.patterns:
            most = max(chars, shape.least) if shape.most is None else min(max(chars, shape.least), shape.most)
            return f'/"{CHAR}{{{shape.least},{most}}}"/'
        try:
            return _patterned(tuple(parse(pattern) for pattern in shape.patterns), shape, chars)
        except Unsupported as reason:
            raise refuse(self._param, "pattern", str(reason)) from reason

    def _number(self, shape: Number, level: int) -> str | None:
        digits, places = (6, 2) if level <= LEVELS[0] else (15, 0 if shape.is_integer else 4)
        factor = shape.factor
        if shape.is_integer and (factor is None or factor < 1):
            whole = factor is None or (Decimal(1) / factor) % 1 == 0
            factor, places = (None, 0) if whole else (factor, 0)
        if shape.is_integer and factor is not None and factor % 1 != 0:
            raise refuse(self._param, "multipleOf", "a fraction for an integer")
        body = number(shape.bounds, digits, places) if factor is None else multiples(shape.bounds, factor, digits)
        return self._grammar.add_terminal(f"/{body}/") if body else None

    def _array(self, shape: Array, level: int) -> str | None:
        if shape.least > MAX_LEAST:
            raise refuse(self._param, "minItems", f"at most {MAX_LEAST} can be demanded")
        weights = [self._weights.of(place) for place in shape.prefix]
        rest_weight = self._weights.of(shape.rest)
        room = max(level - 2 - sum(weights), 0)
        count = _items(int(room // rest_weight), level, shape.least)
        most = max(count, shape.least - len(shape.prefix))
        most = most if shape.most is None else min(most, max(shape.most - len(shape.prefix), 0))
        share = min(room / max(1, ceil(most / SPARE_ITEMS), shape.least - len(shape.prefix)), level * STEP)
        if shape.is_unique:
            return self._unique(shape, share)
        whole = sum(weights) + rest_weight
        items = [self._rule(place, min(level * self._weights.of(place) / whole, level * STEP)) for place in shape.prefix]
        items = items[: items.index(None)] if None in items else items
        items = items if shape.most is None else items[: shape.most]
        rest = self._rule(shape.rest, share) if most and len(items) == len(shape.prefix) else None
        return _listed([item for item in items if item], rest, shape.least, most)

    def _unique(self, shape: Array, share: float) -> str | None:
        """Distinct items: one at most, or a choice of literal values in the order the schema names them."""
        if (shape.most is not None and shape.most <= 1) or shape.prefix:
            if shape.prefix and (shape.most is None or shape.most > 1):
                raise refuse(self._param, "uniqueItems", "it cannot be kept together with listed items")
            rule = self._rule(shape.rest, share) if shape.most else None
            return _listed([], rest=rule, least=shape.least, most=1)
        values = [value for item in self._shapes.of(shape.rest) for value in (item.values if isinstance(item, Literals) else ("",))]
        if "" in values or len(values) > MAX_UNIQUE:
            raise refuse(self._param, "uniqueItems", f"it is kept for items of at most {MAX_UNIQUE} literal values only")
        most = len(values) if shape.most is None else min(shape.most, len(values))
        return self._distinct(tuple(dict.fromkeys(values)), shape.least, most)

    def _distinct(self, values: tuple[str, ...], least: int, most: int) -> str | None:
        """Rules for (position among the values, number already taken), from the end backwards."""
        after: dict[int, str | None] = {taken: literal("]") if least <= taken <= most else None for taken in range(most + 1)}
        for value in reversed(values):
            here: dict[int, str | None] = {}
            for taken in range(most + 1):
                options = [after[taken]] if after[taken] else []
                following = after.get(taken + 1)
                if following:
                    options.append(f"{literal(', ' if taken else '')} {literal(value)} {following}")
                here[taken] = self._grammar.add(" | ".join(option for option in options if option)) if options else None
            after = here
        return f"{literal('[')} {after[0]}" if after[0] else None

    def _object(self, shape: Object, level: int) -> str | None:
        weights = [self._weights.of(named.place) for named in shape.properties]
        keys = [key_weight(named.name) for named in shape.properties]
        room = max(level - 2 - sum(keys), 0)
        pairs: list[tuple[str, bool]] = []
        for named, weight in zip(shape.properties, weights, strict=True):
            value = self._rule(named.place, min(room * weight / sum(weights), level * STEP))
            if value is None and named.is_required:
                return None
            if value is not None:
                pairs.append((f"{literal(json.dumps(named.name, ensure_ascii=False) + ': ')} {value}", named.is_required))
        return self._paired(_counted(pairs, shape))

    def _paired(self, pairs: list[tuple[str, bool]] | None) -> str | None:
        """Pairs in order, optional ones left out at will, commas only between."""
        if pairs is None:
            return None
        comma = literal(", ")
        first = next((position for position, (_, is_required) in enumerate(pairs) if is_required), None)
        if first is None:
            tail: str | None = None
            options: list[str] = []
            for pair, _ in reversed(pairs):
                options.append(f"{pair} {tail}" if tail else pair)
                tail = self._grammar.add(f"({comma} {pair})? {tail or ''}")
            inside = f"({' | '.join(reversed(options))})?" if options else ""
        else:
            before = [f"({pair} {comma})?" for pair, _ in pairs[:first]]
            after = [f"{comma} {pair}" if is_required else f"({comma} {pair})?" for pair, is_required in pairs[first + 1 :]]
            inside = " ".join([*before, pairs[first][0], *after])
        return f"{literal('{')} {inside} {literal('}')}"

    def _map(self, shape: Object, extra: Place, level: int) -> str | None:
        if shape.least > 1:
            raise refuse(self._param, "minProperties", "more than one is kept only for named properties")
        weight = self._weights.of(extra) + 5
        count = _items(int(level // weight), level, shape.least)
        count = count if shape.most is None else min(count, shape.most)
        value = self._rule(extra, min(level / max(1, ceil(count / SPARE_ITEMS)) - 5, level * STEP)) if count else None
        key = self._key(shape) if value else None
        if value is None or key is None:
            return None if shape.least else f"{literal('{')} {literal('}')}"
        pair = self._grammar.add(f"{key} {literal(': ')} {value}")
        tail = f"({literal(', ')} {pair}){{0,{count - 1}}}" if count > 1 else ""
        inside = f"{pair} {tail}" if shape.least else f"({pair} {tail})?"
        return f"{literal('{')} {inside} {literal('}')}"

    def _key(self, shape: Object) -> str | None:
        if shape.key == ANYTHING and shape.key_pattern is None:
            return self._grammar.add_terminal(f'/"{KEY}{{1,{KEY_CHARS}}}"/')
        bodies: list[str] = []
        for kind in self._shapes.of(shape.key) if shape.key else (Text(),):
            if isinstance(kind, Text):
                patterns = (*kind.patterns, shape.key_pattern) if shape.key_pattern is not None else kind.patterns
                body = self._inside(Text(kind.least, kind.most, patterns), KEY_CHARS)
                bodies += [self._grammar.add_terminal(body)] if body else []
            elif isinstance(kind, Literals) and shape.key_pattern is None:
                bodies += [literal(value) for value in kind.values if value.startswith('"')]
            elif isinstance(kind, Literals):
                raise refuse(self._param, "propertyNames", "it cannot be kept together with patternProperties")
        return self._grammar.add(" | ".join(bodies)) if bodies else None


def _items(wanted: int, level: int, least: int) -> int:
    """How many items a list may have. A few always, where the budget is not at its end: a list of one is hardly a list."""
    few = next((few for few, floor in ((4, 45), (3, 20), (2, 9)) if level >= floor), min(least, 1))
    return max(few, min(wanted, MAX_ITEMS))


def _patterned(nodes: tuple[Node, ...], shape: Text, chars: int) -> str | None:
    """A text all patterns match, within its lengths; None when there is none."""
    least = max(shape.least, *(shortest(node) for node in nodes))
    most = max(chars, least + KEY_CHARS) if shape.most is None else shape.most
    if len(nodes) > 1 or shape.least or shape.most is not None:
        near = min(least + LOOK_CHARS, most)  # what is possible at all is possible not far above the least
        if not is_possible(tuple(bounded(node, near) for node in nodes), shape.least, most):
            return None
    parts = [f'/"{written(bounded(node, min(max(chars, least + LOOK_CHARS), most)))}"/' for node in nodes]
    return " & ".join([*parts, f'/"{ANY_CHAR}{{{shape.least},{most}}}"/'])


def _listed(items: list[str], rest: str | None, least: int, most: int) -> str | None:
    """A list that begins with `items` and goes on with at most `most` of `rest`; at least `least` in all."""
    needed = least - len(items)
    if needed > 0 and (rest is None or most < needed):
        return None
    comma = literal(", ")
    body = ""
    if rest is not None and most > 0:
        low = max(needed, 0)
        if items:
            body = f"({comma} {rest}){{{low},{most}}}"
        else:
            more = f"({comma} {rest}){{{max(low - 1, 0)},{most - 1}}}" if most > 1 else ""
            body = f"{rest} {more}" if low else f"({rest} {more})?"
    for position in range(len(items) - 1, -1, -1):
        lead = f"{comma} {items[position]}" if position else items[position]
        body = f"{lead} {body}" if position < least else f"({lead} {body})?"
    return f"{literal('[')} {body} {literal(']')}"


def _counted(pairs: list[tuple[str, bool]], shape: Object) -> list[tuple[str, bool]] | None:
    """Keep the counts of properties: the first optional ones become required, or the last ones go. None: impossible."""
    required = sum(is_required for _, is_required in pairs)
    if len(pairs) < shape.least or (shape.most is not None and required > shape.most):
        return None
    missing = shape.least - required
    spare = len(pairs) if shape.most is None else shape.most - required
    out: list[tuple[str, bool]] = []
    for pair, is_required in pairs:
        if is_required:
            out.append((pair, True))
        elif missing > 0:
            out.append((pair, True))
            missing, spare = missing - 1, spare - 1
        elif spare > 0:
            out.append((pair, False))
            spare -= 1
    return out
