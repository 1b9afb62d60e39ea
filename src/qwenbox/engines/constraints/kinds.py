"""This is where the shapes a JSON value may have are values, and where a keyword we cannot keep is refused."""

from decimal import Decimal
from typing import TypeAlias

import msgspec

from qwenbox.engines.constraints.numbers import Range
from qwenbox.terms.errors import ApiError, ErrorKind

Place: TypeAlias = tuple[str, ...]

ANYTHING: Place = ()


class Literals(msgspec.Struct, frozen=True, tag=True):
    """JSON values as text, distinct."""

    values: tuple[str, ...]


class Text(msgspec.Struct, frozen=True, tag=True):
    """Lengths in characters. patterns: all of them must be found in it."""

    least: int = 0
    most: int | None = None
    patterns: tuple[str, ...] = ()


class Number(msgspec.Struct, frozen=True, tag=True):
    is_integer: bool
    bounds: Range
    factor: Decimal | None = None


class Array(msgspec.Struct, frozen=True, tag=True):
    """rest: what follows the prefix."""

    prefix: tuple[Place, ...]
    rest: Place
    least: int
    most: int | None
    is_unique: bool


class Property(msgspec.Struct, frozen=True, tag=True):
    name: str
    place: Place
    is_required: bool


class Object(msgspec.Struct, frozen=True, tag=True):
    """extra, key: the value and the name of further properties; only an object that names no property has any."""

    properties: tuple[Property, ...]
    extra: Place | None
    key: Place
    key_pattern: str | None
    least: int
    most: int | None


Shape: TypeAlias = Literals | Text | Number | Array | Object


def refuse(param: str, keyword: str, reason: str) -> ApiError:
    """`keyword` of a schema cannot be kept exactly."""
    return ApiError(ErrorKind.INVALID_REQUEST, f'The JSON schema in {param} uses "{keyword}": {reason}.', param=param)
