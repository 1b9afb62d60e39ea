"""This is where one process keeps its sliding windows: every admission of the last window, and the moments promised to those refused."""

from collections import OrderedDict, deque
from collections.abc import Iterator

import msgspec

from qwenbox.gateway.counters.base import LEAST_OUTPUT_TOKENS, Ask, LiveWindow, Window, Worst
from qwenbox.gateway.counters.promises import LIMITS, Promise, Promises
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.limits import LimitState

# An admission counts up to and including its window's last moment, so whoever is told a wait must come a little after it.
MARGIN_S = 0.001
# Whoever was promised a moment comes about this much after it; what follows on that admission is told to come later by as much.
LATE_S = 0.05
# How long a call takes where none has ended yet, and how much of the mean the latest one is.
_FIRST_MEAN_S = 1.0
_LATEST_SHARE = 0.125
_GONE = -1


class Entry(msgspec.Struct, eq=False, gc=False):
    """One admission. at: monotonic seconds. tokens: _GONE once it no longer counts.

    Unknown to the garbage collector, which would look through all of them again and again: of 240,000 (a minute of a busy worker)
    in 21 ms, in which nothing is served.
    """

    at: float
    tokens: int


class Log:
    """One window. entries: in order of time. open: calls admitted and not settled. mean_s: how long calls take lately."""

    __slots__ = ("entries", "mean_s", "open", "promises", "tokens", "used_at")

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.tokens = 0
        self.open = 0
        self.promises = Promises()
        self.mean_s = _FIRST_MEAN_S
        self.used_at = 0.0

    def expire(self, now: float, window_s: float) -> None:
        entries = self.entries
        while entries and now - entries[0].at > window_s:
            gone = entries.popleft()
            self.tokens -= gone.tokens
            gone.tokens = _GONE
        if self.promises:
            self.promises.lapse(now)

    def add(self, now: float, tokens: int, mark: int) -> Entry:
        """Admit."""
        entry = Entry(now, tokens)
        self.entries.append(entry)
        self.tokens += tokens
        self.open += 1
        if self.promises:
            self.promises.claim(now, mark)
        return entry

    def end(self, entry: Entry, tokens: int, now: float) -> None:
        """The call is over: correct its admission to what was used, if it still counts."""
        self.open -= 1
        if entry.tokens != _GONE:
            self.tokens += tokens - entry.tokens
            entry.tokens = tokens
        self.mean_s += (now - entry.at - self.mean_s) * _LATEST_SHARE

    def undo(self, entry: Entry) -> None:
        """The call was never admitted."""
        self.open -= 1
        if entry.tokens != _GONE:
            self.tokens -= entry.tokens
            self.entries.remove(entry)
            entry.tokens = _GONE

    def is_full(self, window: Window, kept: int) -> bool:
        """Whether not even a call without tokens fits. kept: places that are somebody else's."""
        is_full = window.requests is not None and len(self.entries) + kept >= window.requests
        return is_full or (window.concurrency is not None and self.open >= window.concurrency)

    def kept(self, now: float, mark: int) -> tuple[int, int]:
        """Requests and tokens that this caller must leave to others, who were promised them."""
        if not self.promises or not mark:
            return 0, 0
        own = self.promises.own(now, mark)
        return (0, 0) if own is not None and own.at <= now else self.promises.kept(now)

    def free_at(self, window: Window, ask: Ask, now: float, window_s: float) -> Iterator[tuple[float, bool, ErrorKind]]:
        """For each limit: the moment at which it has room for this refused call, and whether and how it refuses it now.

        Who comes when it was told to, and is refused because somebody was faster, is told anew; who cannot wait so long keeps its moment.
        """
        tokens = _needed_tokens(ask.worst)
        kept_requests, kept_tokens = self.kept(now, ask.mark)
        claimed = self.promises.claim(now, ask.mark)
        again_at = claimed.at if claimed is not None and claimed.at > now else None
        if window.requests is not None:
            at = again_at or self.requests_free_at(window.requests, now, window_s)
            yield at, len(self.entries) + kept_requests >= window.requests, ErrorKind.RATE_LIMITED
        if window.tokens is not None:
            at = again_at or self.tokens_free_at(tokens, window.tokens, now, window_s)
            yield at, self.tokens + kept_tokens + tokens > window.tokens, ErrorKind.QUOTA_EXHAUSTED
        if window.concurrency is not None and self.open >= window.concurrency:
            # Nobody knows when a call ends: an estimate, one place becoming free every mean ÷ concurrency.
            yield now + min(window_s, self.mean_s * (len(self.promises) + 1) / window.concurrency), True, ErrorKind.RATE_LIMITED

    def requests_free_at(self, limit: int, now: float, window_s: float) -> float:
        """The moment at which one more request fits after everybody who was promised one."""
        ahead = len(self.entries) + len(self.promises) - max(1, limit)
        if ahead < 0:
            return now
        if ahead < len(self.entries):
            return self.entries[ahead].at + window_s
        return max(self.promises[ahead - len(self.entries)].at, now) + LATE_S + window_s

    def tokens_free_at(self, tokens: int, limit: int, now: float, window_s: float) -> float:
        """The moment at which `tokens` more fit after everybody who was promised some."""
        excess = self.tokens + self.promises.tokens + tokens - limit
        if excess <= 0:
            return now
        for entry in self.entries:
            excess -= entry.tokens
            if excess <= 0:
                return entry.at + window_s
        for promise in self.promises:
            excess -= promise.tokens
            if excess <= 0:
                return max(promise.at, now) + LATE_S + window_s
        return now + window_s


def _at(entry: Entry) -> float:
    return entry.at


class Windows:
    """All windows of a process. Times are monotonic, so a wall clock that jumps changes nothing."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._logs: OrderedDict[str, Log] = OrderedDict()

    def grant(self, ask: Ask, now: float) -> tuple[int, tuple[Log, ...]]:
        """How many output tokens the windows let this call have, and their logs. Takes nothing.

        Raises ApiError: RATE_LIMITED, QUOTA_EXHAUSTED, INVALID_REQUEST, see Counters.reserve.
        """
        worst = ask.worst
        output, least = worst.output_tokens, least_tokens(worst)
        is_refused = False
        logs: list[Log] = []
        for window in ask.windows:
            log = self._log(window.id, now)
            logs.append(log)
            kept_requests, kept_tokens = log.kept(now, ask.mark) if log.promises else (0, 0)
            if log.is_full(window, kept_requests):
                is_refused = True
            if window.tokens is not None:
                left = window.tokens - log.tokens - kept_tokens - worst.input_tokens
                if left < least:
                    is_refused = True
                elif worst.is_flexible:
                    output = min(output, max(least, left // 2))
            self._retire(now)
        if is_refused:
            raise self._refusal(ask, logs, now)
        return whole(output, worst.choices), tuple(logs)

    def state(self, windows: tuple[Window, ...], now: float) -> LimitState | None:
        """What is left where least is left, of requests and of tokens; None if these windows limit neither."""
        requests: tuple[int, int, Log] | None = None
        tokens: tuple[int, int, Log] | None = None
        for window in windows:
            log = self._logs[window.id]
            if window.requests is not None:
                left = window.requests - len(log.entries)
                if requests is None or left < requests[0]:
                    requests = (left, window.requests, log)
            if window.tokens is not None:
                left = window.tokens - log.tokens
                if tokens is None or left < tokens[0]:
                    tokens = (left, window.tokens, log)
        if requests is None and tokens is None:
            return None
        return LimitState(
            requests_limit=requests[1] if requests else None,
            requests_left=max(0, requests[0]) if requests else None,
            requests_reset_s=self._reset_s(requests[2], now) if requests else 0.0,
            tokens_limit=tokens[1] if tokens else None,
            tokens_left=max(0, tokens[0]) if tokens else None,
            tokens_reset_s=self._reset_s(tokens[2], now) if tokens else 0.0,
        )

    def restore(self, window_id: str, at: float, tokens: int, now: float) -> None:
        """Count an admission from before this process started. at: in this process's monotonic seconds, may be negative."""
        if now - at > self._window_s:
            return
        log = self._log(window_id, now)
        log.entries.append(Entry(min(at, now), tokens))
        log.tokens += tokens
        if len(log.entries) > 1 and log.entries[-2].at > log.entries[-1].at:
            log.entries = deque(sorted(log.entries, key=_at))

    def live(self, now: float) -> tuple[LiveWindow, ...]:
        """Every window that holds anything."""
        for log in self._logs.values():
            log.expire(now, self._window_s)
        return tuple(
            LiveWindow(
                id=name,
                requests=len(log.entries),
                tokens=log.tokens,
                open=log.open,
                frees_in_s=max(0.0, log.entries[0].at + self._window_s - now) if log.entries else 0.0,
                empty_in_s=self._reset_s(log, now),
            )
            for name, log in self._logs.items()
            if log.entries or log.open
        )

    def _log(self, name: str, now: float) -> Log:
        log = self._logs.get(name)
        if log is None:
            log = self._logs[name] = Log()
        else:
            self._logs.move_to_end(name)
            log.expire(now, self._window_s)
        log.used_at = now
        return log

    def _retire(self, now: float) -> None:
        """Forget one window that nobody used for so long that it holds nothing. Called for every window of every call: none stays."""
        name, log = next(iter(self._logs.items()))
        if now - log.used_at > self._window_s:
            log.expire(now, self._window_s)
            if log.open or log.promises:
                self._logs.move_to_end(name)
            else:
                del self._logs[name]

    def _reset_s(self, log: Log, now: float) -> float:
        return max(0.0, log.entries[-1].at + self._window_s - now) if log.entries else 0.0

    def _refusal(self, ask: Ask, logs: list[Log], now: float) -> ApiError:
        """The error with the first moment at which every window has room, which from here on is promised to this caller."""
        hopeless = impossible(ask)
        if hopeless is not None:
            return hopeless
        free_at, kind, kind_at = now, ErrorKind.RATE_LIMITED, 0.0
        for window, log in zip(ask.windows, logs, strict=True):
            for at, is_short, of in log.free_at(window, ask, now, self._window_s):
                free_at = max(free_at, at)
                if is_short and at > kind_at:
                    kind, kind_at = of, at
        # Windows that wait for each other, and calls of half a limit each, would add up to more than anybody waits.
        free_at = min(free_at, now + (LIMITS + 1) * (self._window_s + LATE_S)) + MARGIN_S
        for window, log in zip(ask.windows, logs, strict=True):
            log.promises.make(Promise(free_at, now, _needed_tokens(ask.worst), ask.mark), window.requests, window.tokens)
        error = ApiError(kind, retry_after_s=free_at - now)
        error.limits = self.state(ask.windows, now)
        return error


def whole(output_tokens: int, choices: int) -> int:
    """Output tokens that the choices share evenly."""
    return output_tokens if choices == 1 else output_tokens - output_tokens % choices


def least_tokens(worst: Worst) -> int:
    """The smallest output that may be granted, over all choices."""
    if not worst.is_flexible:
        return worst.output_tokens
    return min(worst.output_tokens, -(-LEAST_OUTPUT_TOKENS // worst.choices) * worst.choices)


def impossible(ask: Ask) -> ApiError | None:
    """Why no wait can admit this call, if so."""
    tokens = _needed_tokens(ask.worst)
    for window in ask.windows:
        if window.tokens is not None and tokens > window.tokens:
            text = f"The input and max_tokens together are {tokens} tokens; no more than {window.tokens} may be used in one window."
            is_input = ask.worst.input_tokens + ask.worst.choices > window.tokens
            hint = " Shorten the input." if is_input else " Lower max_tokens."
            return ApiError(ErrorKind.INVALID_REQUEST, text + hint, param=None if is_input else "max_tokens")
    return None


def _needed_tokens(worst: Worst) -> int:
    """Without so many the call is not admitted."""
    return worst.input_tokens + least_tokens(worst)
