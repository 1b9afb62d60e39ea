"""This is where we say what a caller asked of the box itself, by headers; no engine ever sees it."""

import msgspec


class Patience(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long each part of a call may take, in seconds > 0. None: whoever is asked next decides; without an answer, for ever.

    connect_s: until the model's server took a connection. first_token_s: from being sent there to the first delta.
    between_tokens_s: longest silence between two deltas. total_s: from being sent there to the end, further attempts included.
    """

    connect_s: float | None = None
    first_token_s: float | None = None
    between_tokens_s: float | None = None
    total_s: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value: float | None = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be a number of seconds above 0")


NO_PATIENCE = Patience()


class CacheWish(msgspec.Struct, frozen=True, kw_only=True):
    """What `Cache-Control` says (RFC 9111 5.2.1). may_read: no-cache and no-store forbid it; may_store: no-store forbids it.

    max_age_s: the oldest answer wanted. only_if_cached: rather an error than a new answer.
    """

    may_read: bool = True
    may_store: bool = True
    max_age_s: float | None = None
    only_if_cached: bool = False


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """shows_deployment: who answered is named in a header. provoke: the fault wanted, heeded only by a box started for testing.

    resolves_uploads: oss:// names in the request stand for what the caller uploaded.
    """

    cache: CacheWish = CacheWish()
    patience: Patience = NO_PATIENCE
    shows_deployment: bool = False
    provoke: str = ""
    resolves_uploads: bool = False


NO_WISHES = Wishes()
