"""This is where every metric has its name, its kind, its labels and its meaning; docs/metrics.md says the same for people."""

import msgspec

# Seconds. The steps that OpenTelemetry's conventions for GenAI recommend, so that boxes and other servers can be laid over each other.
TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TPOT_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
QUEUE_S = (0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

_CALL = ("model", "deployment", "lane")


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """buckets_s: upper bounds of a histogram's buckets, the endless one left out."""

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets_s: tuple[float, ...] = ()


def _counter(name: str, meaning: str, *labels: str) -> Family:
    return Family(name=name, kind=COUNTER, meaning=meaning, labels=labels)


def _gauge(name: str, meaning: str, *labels: str) -> Family:
    return Family(name=name, kind=GAUGE, meaning=meaning, labels=labels)


def _histogram(name: str, meaning: str, buckets_s: tuple[float, ...]) -> Family:
    return Family(name=name, kind=HISTOGRAM, meaning=meaning, labels=_CALL, buckets_s=buckets_s)


REQUESTS = _counter("qwenbox_requests_total", "HTTP requests that are over", "dialect", "operation", "model", "status", "outcome")
IN_PROGRESS = _gauge("qwenbox_requests_in_progress", "HTTP requests that are being answered")
ERRORS = _counter("qwenbox_errors_total", "Requests that ended with an error, also in the middle of a stream", "dialect", "kind")
LIMIT_REFUSALS = _counter("qwenbox_limit_refusals_total", "Calls refused by our own limits: requests, tokens or money", "limit")
CALLS = _counter("qwenbox_calls_total", "Calls in the books, by how they ended", *_CALL, "outcome")
TOKENS = _counter(
    "qwenbox_tokens_total", "Tokens that engines read and wrote; cached is part of input, reasoning of output", *_CALL, "class"
)
TTFT = _histogram("qwenbox_time_to_first_token_seconds", "From admission to the first token", TTFT_S)
TPOT = _histogram("qwenbox_time_per_output_token_seconds", "Mean time per output token after the first", TPOT_S)
DURATION = _histogram("qwenbox_call_duration_seconds", "From admission to the end of a call that an engine was asked for", DURATION_S)
QUEUE = _histogram("qwenbox_queue_seconds", "Wait for a place on the engine that answered", QUEUE_S)
CACHE = _counter("qwenbox_cache_answers_total", "Calls that the response cache had a part in: hit, miss or bypass", "model", "state")
MONEY = _counter("qwenbox_money_settled_total", "What calls cost, in units of the currency", "model", "currency")
BATCH_LINES = _counter("qwenbox_batch_lines_total", "Batch lines that have their result, by how it ended", "outcome")
ATTEMPTS = _counter("qwenbox_attempts_total", "Times a deployment was asked, by whether its answer began", "deployment", "result")
RETRIES = _counter("qwenbox_retries_total", "Attempts after a call's first, at whatever deployment", "deployment")
BREAKER = _gauge("qwenbox_breaker_open", "Processes in which the deployment is left alone, since it kept failing", "deployment")
SLOTS = _gauge("qwenbox_engine_slots", "Sequences an engine runs at once", "queue")
SLOTS_USED = _gauge("qwenbox_engine_slots_used", "Sequences that run now", "queue")
KV = _gauge("qwenbox_engine_kv_tokens", "Tokens an engine's KV pool holds", "queue")
KV_USED = _gauge("qwenbox_engine_kv_tokens_used", "Tokens of it that running calls may need at worst", "queue")
WAITING = _gauge("qwenbox_engine_waiting", "Calls that wait for a place", "queue", "lane")
CHILD_READY = _gauge("qwenbox_child_ready", "1 while the engine's child process answers", "engine", "role")
CHILD_STARTS = _counter("qwenbox_child_starts_total", "Starts of the child process, loads on demand included", "engine", "role")
CHILD_RESTARTS = _counter("qwenbox_child_restarts_total", "Starts of the child process after it had crashed", "engine", "role")
CHILD_MEMORY = _gauge(
    "qwenbox_child_resident_memory_bytes", "Memory of the child process, the weights it mapped included", "engine", "role"
)
BOOKS_CLOSED = _gauge("qwenbox_books_closed", "Processes that refuse calls since the database does not take their rows")
CPU = _counter("qwenbox_process_cpu_seconds_total", "CPU time of a process of the box, its engines' children apart", "process")
MEMORY = _gauge("qwenbox_process_resident_memory_bytes", "Memory of a process of the box, its engines' children apart", "process")
INFO = _gauge("qwenbox_build_info", "Processes of this version", "version")

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(REQUESTS, IN_PROGRESS, ERRORS, LIMIT_REFUSALS, CALLS, TOKENS, TTFT, TPOT, DURATION, QUEUE, CACHE, MONEY, BATCH_LINES),
        *(ATTEMPTS, RETRIES, BREAKER, SLOTS, SLOTS_USED, KV, KV_USED, WAITING, CHILD_READY, CHILD_STARTS, CHILD_RESTARTS),
        *(CHILD_MEMORY, BOOKS_CLOSED, CPU, MEMORY, INFO),
    )
}
