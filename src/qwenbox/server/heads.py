"""This is where a response's head says what the box decided: limits left, and how long the answer may be."""

import msgspec

from qwenbox.dialects.base import Head, Page
from qwenbox.gateway.router import Answer
from qwenbox.terms.limits import LimitState


def of_answer(head: Head, answer: Answer) -> Head:
    """The reply's head with what the gateway decided; the same value when it decided nothing."""
    if answer.limits is None and answer.output_limit_tokens is None and not (answer.cache or answer.applied or answer.is_named):
        return head
    own = {} if answer.limits is None else limits(answer.limits)
    if answer.output_limit_tokens is not None:
        own["x-qwenbox-max-tokens"] = str(answer.output_limit_tokens)
    if answer.is_named:
        own["x-qwenbox-deployment"] = answer.deployment
    if answer.cache:
        own["x-qwenbox-cache"] = answer.cache
    if answer.applied:
        own["x-qwenbox-applied"] = ", ".join(answer.applied)
    return msgspec.structs.replace(head, headers={**head.headers, **own})


def of_error(page: Page, state: LimitState | None) -> Page:
    """The error's page with the state of the limit that refused."""
    if state is None:
        return page
    return msgspec.structs.replace(page, head=msgspec.structs.replace(page.head, headers={**page.head.headers, **limits(state)}))


def limits(state: LimitState) -> dict[str, str]:
    """`x-ratelimit-*` as OpenAI's service sends them, which both SDKs' users know; nothing for what is not limited."""
    headers: dict[str, str] = {}
    for name, limit, left, reset_s in (
        ("requests", state.requests_limit, state.requests_left, state.requests_reset_s),
        ("tokens", state.tokens_limit, state.tokens_left, state.tokens_reset_s),
    ):
        if limit is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(max(0, left or 0))
            headers[f"x-ratelimit-reset-{name}"] = _span(reset_s)
    return headers


def _span(seconds_s: float) -> str:
    """ "1s", "6m0s", "250ms": the notation of Go's durations, as the service writes them."""
    if seconds_s < 1:
        return f"{max(0, round(seconds_s * 1000))}ms"
    minutes, rest_s = divmod(seconds_s, 60)
    return f"{int(minutes)}m{rest_s:.0f}s" if minutes else f"{rest_s:.3f}".rstrip("0").rstrip(".") + "s"
