"""This is where states of queues, deployments and children become metrics."""

from collections.abc import Iterable, Mapping

from qwenbox.telemetry import names
from qwenbox.telemetry.snapshot import Sample, sample
from qwenbox.terms.gauges import DeploymentState, HasChildren, QueueState


def queues(states: Iterable[QueueState]) -> Iterable[Sample]:
    for state in states:
        if state.slots is not None:
            yield sample(names.SLOTS, state.slots, state.name)
            yield sample(names.SLOTS_USED, state.slots_used, state.name)
        if state.kv_tokens is not None:
            yield sample(names.KV, state.kv_tokens, state.name)
            yield sample(names.KV_USED, state.kv_tokens_used, state.name)
        for lane, waiting in state.waiting.items():
            yield sample(names.WAITING, waiting, state.name, lane)


def deployments(states: Iterable[DeploymentState]) -> Iterable[Sample]:
    for state in states:
        yield sample(names.ATTEMPTS, state.answered, state.name, "answered")
        yield sample(names.ATTEMPTS, state.failed, state.name, "failed")
        yield sample(names.RETRIES, state.retries, state.name)
        yield sample(names.BREAKER, state.is_open, state.name)


def children(owners: Mapping[str, HasChildren]) -> Iterable[Sample]:
    """owners: engines by name."""
    for name, owner in owners.items():
        for state in owner.children():
            yield sample(names.CHILD_READY, state.is_ready, name, state.role)
            yield sample(names.CHILD_STARTS, state.starts, name, state.role)
            yield sample(names.CHILD_RESTARTS, state.restarts, name, state.role)
            yield sample(names.CHILD_MEMORY, state.memory_bytes, name, state.role)


def books(is_open: bool) -> Iterable[Sample]:
    yield sample(names.BOOKS_CLOSED, not is_open)
