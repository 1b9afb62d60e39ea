"""This is where we guess how many tokens a value comfortably takes, to divide a budget fairly."""

from qwenbox.engines.constraints.kinds import Array, Literals, Number, Object, Place, Shape, Text
from qwenbox.engines.constraints.shapes import Shapes

TEXT = 24.0
NUMBER = 5.0
RECURSION = 16.0
ANYTHING = 12.0
MOST = 2_000.0
MAX_DEPTH = 12


class Weights:
    """Tokens per place; a place inside itself counts as RECURSION."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._known: dict[Place, float] = {}
        self._open: set[Place] = set()

    def of(self, place: Place) -> float:
        place = self._shapes.resolved(place)
        known = self._known.get(place) if place else ANYTHING
        if known is not None:
            return known
        if place in self._open or len(self._open) > MAX_DEPTH:
            return RECURSION
        self._open.add(place)
        weight = max((self._shape(shape) for shape in self._shapes.of(place)), default=1.0)
        self._open.discard(place)
        self._known[place] = min(weight, MOST)
        return self._known[place]

    def _shape(self, shape: Shape) -> float:
        match shape:
            case Literals():
                return max(min(len(value) / 4 + 1, TEXT) for value in shape.values)
            case Text():
                return TEXT if shape.most is None else max(2.0, min(shape.most / 2.5 + 2, TEXT))
            case Number():
                return NUMBER
            case Array():
                count = 3 if shape.most is None else min(3, max(shape.most - len(shape.prefix), 0))
                count = max(count, shape.least - len(shape.prefix))
                return 2 + sum(self.of(place) + 1 for place in shape.prefix) + count * (self.of(shape.rest) + 1)
            case Object():
                named = sum(self.of(entry.place) + key_weight(entry.name) for entry in shape.properties)
                return 2 + named + (3 * (self.of(shape.extra) + 5) if shape.extra is not None else 0)


def key_weight(name: str) -> float:
    """Tokens of a key with its quotes, colon and comma."""
    return len(name) / 4 + 4
