"""This is where it is set what pictures may cost and where they may come from."""

import ipaddress
from typing import TypeAlias

import msgspec

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_MIB = 1024 * 1024


class MediaConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[media]`: pictures that a request points at.

    fetches_public: False takes pictures only from what `allow` lists. allow: addresses, networks (`10.1.0.0/16`) and host names that may
    be fetched from though they are private; a name may then lead to any address.
    item_bytes: the largest picture; of a data URL, its text. most_pixels: width times height.
    request_bytes, request_pictures: of all pictures of a request, and how many, frames included.
    item_s, request_s: how long one picture, and all of a request, may take to come. redirects: how many are followed.
    fetches, account_fetches: pictures fetched at the same time, by all and by one account. decoders: pictures decoded at the same time;
    each takes four bytes a pixel meanwhile.
    """

    fetches_public: bool = True
    allow: tuple[str, ...] = ()
    item_bytes: int = 10 * _MIB
    request_bytes: int = 64 * _MIB
    request_pictures: int = 1024
    most_pixels: int = 32 * _MIB
    item_s: float = 20.0
    request_s: float = 60.0
    redirects: int = 5
    fetches: int = 16
    account_fetches: int = 4
    decoders: int = 1

    def __post_init__(self) -> None:
        for name in (
            "item_bytes",
            "request_bytes",
            "request_pictures",
            "most_pixels",
            "item_s",
            "request_s",
            "fetches",
            "account_fetches",
            "decoders",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        if self.redirects < 0:
            raise ValueError("redirects must be 0 or more")
        for entry in self.allow:
            if network(entry) is None and ("/" in entry or ":" in entry or not entry):
                raise ValueError(f"allow lists addresses, networks and host names, without scheme or port; `{entry}` is none")


def network(entry: str) -> Network | None:
    """An address or a network; None for a host's name. Raises nothing."""
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
