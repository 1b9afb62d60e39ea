"""This is where addresses are recognised: e-mail and IP."""

import ipaddress
import re
from collections.abc import Iterator

from qwenbox.gateway.redaction.config import Kind
from qwenbox.gateway.redaction.found import Found

# Anchored at a token's start, so that a long row of letters is read once, not once per letter.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9_][A-Za-z0-9._%+\-]*@(?:[A-Za-z0-9](?:[A-Za-z0-9\-]{0,62})\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9\-])"
)
# What looks like a domain's end and is a file's: logo@2x.png.
_FILE = re.compile(r"png|jpe?g|gif|svg|webp|ico|css|[mc]?js|tsx?|jsx|json|map|html?|py|rb|go|rs|java|md|txt|pdf|zip|t?gz", re.IGNORECASE)
_GIT = re.compile(r"git@[^:]*", re.IGNORECASE)

_IPV4 = re.compile(r"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z]|\.[0-9])")
_NOT_AN_ADDRESS = re.compile(
    r"(?:\b(?:v|ver|version|release|rev|build|firmware|driver|section|chapter|clause|sec|art|figure|table)|版本|版|第|章|节|条|条款|固件|§|[A-Za-z]/|==|>=|<=|~=|\^)"
    r"[ .:号为是]{0,3}$",
    re.IGNORECASE,
)
_OUTLINE_AFTER = re.compile(r"[ ]?(?:节|章|条|版)")
_IPV6 = re.compile(
    r"(?<![0-9A-Za-z.])(?<![0-9A-Fa-f:]:)(?=[0-9A-Fa-f]|::)[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?:(?:\.[0-9]{1,3}){3})?(?![0-9A-Za-z:]|\.[0-9])"
)
# Addresses in use begin so (IANA); everything else that could be read as one is a time, a fingerprint or a name in some language.
_IPV6_BEGINS = re.compile(r"(?:[23][0-9a-f]{3}|fe[89ab][0-9a-f]|f[cd][0-9a-f]{2}|0?64:ff9b):|::ffff:", re.IGNORECASE)


def emails(text: str) -> Iterator[Found]:
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        address = match[0]
        if _FILE.fullmatch(address.rpartition(".")[2]) or ".." in address:
            continue
        if text[match.end() : match.end() + 1] == ":" and _GIT.fullmatch(address):
            continue  # git@host:path is a place, not a person
        yield Found(Kind.EMAIL, match.start(), match.end(), address.lower())


def ips(text: str) -> Iterator[Found]:
    """Those that could be somebody's: not this machine itself, no netmask."""
    for match in _IPV4.finditer(text):
        if _is_somebodys(match[0]) and not _is_version(text, match.start(), match.end()):
            yield Found(Kind.IP, match.start(), match.end(), match[0])
    if text.count(":") < 2:
        return
    for match in _IPV6.finditer(text):
        if _IPV6_BEGINS.match(match[0]) and _is_somebodys(match[0]):
            yield Found(Kind.IP, match.start(), match.end(), ipaddress.ip_address(match[0]).compressed)


def _is_somebodys(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    first = text.partition(".")[0]
    return not (address.is_loopback or address.is_unspecified or address.is_multicast or first in ("0", "255"))


def _is_version(text: str, start: int, end: int) -> bool:
    return _NOT_AN_ADDRESS.search(text, max(0, start - 16), start) is not None or _OUTLINE_AFTER.match(text, end) is not None
