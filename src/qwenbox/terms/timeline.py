"""This is where it is noted when a call came to each hop of its way (STYLE 4.3), for metrics, logs and traces."""

from typing import Protocol

import msgspec


class CallRecord(Protocol):
    """A call when it is over, as its observers see it: its row in the books. Times in seconds, money in millionths of `currency`.

    model: the public name it was billed under; behind a catalog's `*` whatever its caller wrote. outcome: completed, hung_up or failed.
    """

    @property
    def model(self) -> str: ...
    @property
    def deployment(self) -> str: ...
    @property
    def lane(self) -> str: ...
    @property
    def ttft_s(self) -> float | None: ...
    @property
    def duration_s(self) -> float: ...
    @property
    def input_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int | None: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def reasoning_tokens(self) -> int | None: ...
    @property
    def image_tokens(self) -> int | None: ...
    @property
    def is_cache_hit(self) -> bool: ...
    @property
    def outcome(self) -> str: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def error_kind(self) -> str | None: ...
    @property
    def cost_micros(self) -> int: ...
    @property
    def currency(self) -> str: ...


class Timeline(msgspec.Struct, kw_only=True):
    """Filled in as the call goes; whoever comes to a hop writes its moment. 0.0 and "": it never came there.

    Moments are seconds of `time.monotonic`, never of a test's clock, since they are laid beside other programs' traces.
    operation: the route's verb. model: the catalog's own name, without alias. error: an ErrorKind. cache: hit, miss or bypass.
    begun_s: the request's head was read. looked_s: the cache was asked. entered_s: on the way to an engine, or to a kept answer.
    counted_s: its prompt is counted; admitted_s: limits and money let it in. queued_s, turn_s: it waits for a place on an engine, and has
    it (of the last attempt). first_s: the engine's first event. committing_s, committed_s: its row is being written, and is written.
    attempts: how often an engine was asked. was_stopped: the box ended the call, being stopped itself.
    """

    id: str = ""
    dialect: str = ""
    operation: str = ""
    account_id: str = ""
    key_id: str = ""
    model: str = ""
    error: str = ""
    cache: str = ""
    attempts: int = 0
    begun_s: float = 0.0
    looked_s: float = 0.0
    entered_s: float = 0.0
    counted_s: float = 0.0
    admitted_s: float = 0.0
    queued_s: float = 0.0
    turn_s: float = 0.0
    first_s: float = 0.0
    committing_s: float = 0.0
    committed_s: float = 0.0
    was_stopped: bool = False
    record: CallRecord | None = None
