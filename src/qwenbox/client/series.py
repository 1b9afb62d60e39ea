"""This is where calls over time have their shapes in the admin API."""

from typing import Annotated

from msgspec import Meta

from qwenbox.client.shapes import At, Sent, Text, Told

MOST_STEPS = 1_000


class SeriesAsked(Sent, frozen=True, kw_only=True):
    """since <= admitted < until, seconds since the epoch; until is now where it is not said, since an hour before it.

    last_s: instead of both, so many seconds up to now by the box's clock, from and to a whole multiple of `step_s`.
    step_s: a 60th of the span where it is not said; at most 1,000 steps. account, key: ids or names; nothing means all.
    """

    since: At | None = None
    until: At | None = None
    last_s: Annotated[float, Meta(gt=0, le=366 * 86_400)] | None = None
    step_s: Annotated[float, Meta(gt=0, le=366 * 86_400)] | None = None
    account: Text = ""
    key: Text = ""
    model: Text = ""


class Quantiles(Told, frozen=True, kw_only=True):
    """Of times, in seconds. p50 and p95 are right to 2.5 %, the mean is exact."""

    mean: float
    p50: float
    p95: float


class Step(Told, frozen=True, kw_only=True):
    """Calls admitted from `at` on, until the next step. errors: how many failed, by kind. cached_tokens: part of the input.

    ttft: null where nothing was ever said. tpot_s: mean time of an output token after its call's first; null where there was none.
    """

    at: float
    calls: int
    hung_up: int
    failed: int
    cache_hits: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_micros: int
    errors: dict[str, int]
    ttft: Quantiles | None
    duration: Quantiles | None
    tpot_s: float | None


class Series(Told, frozen=True, kw_only=True):
    """steps: every one of the span, oldest first, empty ones too. total: of them all, `at` their beginning.

    is_whole: false where the span holds more calls than one answer reads (100,000); the oldest steps are left out then.
    """

    since: float
    until: float
    step_s: float
    currency: str
    is_whole: bool
    steps: tuple[Step, ...]
    total: Step
