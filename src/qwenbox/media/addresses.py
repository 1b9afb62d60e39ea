"""This is where it is decided from which addresses a picture may be fetched, before any connection is made."""

import ipaddress
import re
from typing import TypeAlias
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from qwenbox.media import refusals
from qwenbox.media.config import MediaConfig, network

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_MOST_URL = 8_192
_MOST_HOST = 253
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_NETLOC = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:@]+)(:[0-9]{1,5})?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Besides letters, digits and `_.-~`, which are never quoted; a percent sign stays what it was.
_PATH_SIGNS = "%/:@!$&'()*+,;="

# IANA's special-purpose registries (2025), multicast, what is reserved, and the fixed address of one cloud's host agent.
_NOT_PUBLIC_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Global unicast is public, less what leads elsewhere: Teredo and its neighbours, documentation, 6to4. Everything else is not: mapped,
# compatible and translated IPv4, unique local, link-local, multicast.
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a URL points. host: lower-case ASCII, an IPv6 address without brackets; path: with the query, as it is sent."""

    url: str
    is_tls: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.is_tls else "http"] else f"{host}:{self.port}"


def parse(url: str) -> Target:
    """Read strictly: what clients disagree about is refused. Raises ApiError(INVALID_REQUEST)."""
    if len(url) > _MOST_URL or "\\" in url or any(sign <= " " or sign == "\x7f" for sign in url):
        raise refusals.refused(refusals.WRONG_URL)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        path = quote(parts.path or "/", safe=_PATH_SIGNS)
        query = quote(parts.query, safe=f"{_PATH_SIGNS}?")
    except ValueError as error:
        raise refusals.refused(refusals.WRONG_URL) from error
    # Also no name before the host, which is for people's eyes: http://known.example@10.0.0.1/.
    if parts.scheme not in _PORTS or not host or port == 0 or not _NETLOC.fullmatch(parts.netloc):
        raise refusals.refused(refusals.WRONG_URL)
    return Target(
        url=url,
        is_tls=parts.scheme == "https",
        host=_host(host, is_bracketed="[" in parts.netloc),
        port=port or _PORTS[parts.scheme],
        path=f"{path}?{query}" if query else path,
    )


def redirected(target: Target, location: str) -> Target:
    """Raises ApiError(INVALID_REQUEST)."""
    try:
        return parse(urljoin(target.url, location))
    except ValueError as error:
        raise refusals.refused(refusals.WRONG_URL) from error


def is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in range_ for range_ in _NOT_PUBLIC_4)
    return address in _PUBLIC_6 and not any(address in range_ for range_ in _NOT_PUBLIC_6)


class Vetting:
    """The rules of one box."""

    def __init__(self, config: MediaConfig) -> None:
        self._fetches_public = config.fetches_public
        self._networks = tuple(found for entry in config.allow if (found := network(entry)) is not None)
        self._names = frozenset(entry.lower().rstrip(".") for entry in config.allow if network(entry) is None)

    def is_allowed(self, host: str, address: str) -> bool:
        """Whether `host`, as Target has it, may be fetched from at `address`, to which it was resolved."""
        if host in self._names:
            return True
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        if any(found in allowed for allowed in self._networks):
            return True
        return self._fetches_public and is_public(found)


def _host(host: str, *, is_bracketed: bool) -> str:
    if is_bracketed:
        return _literal(host, 6)
    try:
        # Also makes ordinary digits and dots of those of other scripts.
        name = host.encode("idna").decode().lower().removesuffix(".")
    except UnicodeError as error:
        raise refusals.refused(refusals.WRONG_URL) from error
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        # 2130706433, 0177.1 and 0x7f.0.0.1 are addresses to some resolvers; here an address has four decimal numbers.
        return _literal(name, 4)
    if len(name) > _MOST_HOST or not _NAME.fullmatch(name):
        raise refusals.refused(refusals.WRONG_URL)
    return name


def _literal(host: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise refusals.refused(refusals.WRONG_URL) from error
    if address.version != version or "%" in host:
        raise refusals.refused(refusals.WRONG_URL)
    return str(address)
