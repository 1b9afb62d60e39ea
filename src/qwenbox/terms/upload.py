"""This is where it is said what an account may upload for its calls, and where to."""

import msgspec


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """A leave to upload, signed by the box and carried by the client. folder: what names of uploaded files begin with, without a slash
    at its end. expires_at: seconds since the epoch. most_bytes: of one file."""

    account_id: str
    folder: str
    expires_at: float
    most_bytes: int


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A permit as it is handed out. policy, signature: base64. url: where the form goes. account_bytes: kept for an account at a time."""

    permit: Permit
    policy: str
    signature: str
    url: str
    lasts_s: int
    account_bytes: int
