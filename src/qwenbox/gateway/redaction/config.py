"""This is where people say what may not leave for a deployment: `[redaction.DEPLOYMENT]`, one line for the usual."""

import re
from enum import StrEnum

import msgspec

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Kind(StrEnum):
    """What is found by itself. Checked by a checksum: RESIDENT_ID (18 digits), BANK_CARD, IBAN."""

    PHONE = "phone"
    RESIDENT_ID = "resident_id"
    BANK_CARD = "bank_card"
    EMAIL = "email"
    IBAN = "iban"
    IP = "ip"
    PASSPORT = "passport"
    API_KEY = "api_key"


class Mode(StrEnum):
    REPLACE = "replace"  # placeholders out, the values back in the answer
    BLOCK = "block"  # a request that holds any is refused
    OFF = "off"  # as if the table were not there: for a profile that ships with one


class RedactionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept from one deployment.

    kinds: what is looked for. patterns: the user's own, name → regular expression; the name becomes the placeholder's (`<BADGE_1>`).
    lets_pictures_pass: nobody can look into them here; False refuses requests that hold one.
    """

    mode: Mode = Mode.REPLACE
    kinds: frozenset[Kind] = frozenset(Kind)
    patterns: dict[str, str] = {}
    lets_pictures_pass: bool = True

    def __post_init__(self) -> None:
        for name in self.patterns:
            if not _NAME.fullmatch(name) or name in frozenset(Kind):
                raise ValueError(f"the pattern's name {name!r} must be lower-case letters, digits and _, and none of {', '.join(Kind)}")
