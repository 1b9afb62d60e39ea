"""This is where one deployment's record lies: its breaker, its retry budget, how many calls run there."""

from collections.abc import Callable
from random import Random

import msgspec

from qwenbox.clock import Clock, SystemClock
from qwenbox.gateway.attempts.breaker import Breaker, BreakerConfig, State
from qwenbox.gateway.attempts.budget import Budget
from qwenbox.gateway.attempts.policy import Backoff, RetryConfig
from qwenbox.gateway.catalog import Deployment
from qwenbox.terms.gauges import DeploymentState


class AttemptsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The two tables that rule over attempts."""

    retries: RetryConfig = RetryConfig()
    breaker: BreakerConfig = BreakerConfig()


class Standing:
    """running: calls that have their turn there now, of all models. attempts: how often it may be asked for one call.

    answered, failed: attempts with a first event, and without. retries: attempts that were not their calls' first.
    """

    __slots__ = ("answered", "attempts", "breaker", "budget", "deployment", "failed", "name", "retries", "running")

    def __init__(self, deployment: Deployment, config: AttemptsConfig, clock: Clock) -> None:
        self.deployment = deployment
        self.name = deployment.name
        self.running = self.answered = self.failed = self.retries = 0
        # An engine of our own waits, restarts and loads by itself; asking it twice would only fail twice.
        self.attempts = config.retries.attempts if deployment.is_upstream else 1
        self.breaker = Breaker(config.breaker, clock)
        self.budget = Budget(config.retries, clock)

    @property
    def is_calm(self) -> bool:
        """Whether a call may go there without asking anybody."""
        return self.breaker.state is State.CLOSED


class Standings:
    """Of all deployments of a process, each made when it is first asked for."""

    def __init__(self, config: AttemptsConfig, clock: Clock | None = None, draw: Callable[[], float] | None = None) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.draw = draw or Random().random
        self.backoff = Backoff(config.retries, self.draw)
        self._standings: dict[str, Standing] = {}

    def of(self, deployment: Deployment) -> Standing:
        standing = self._standings.get(deployment.name)
        if standing is None:
            standing = self._standings[deployment.name] = Standing(deployment, self.config, self.clock)
        return standing

    def states(self) -> tuple[DeploymentState, ...]:
        return tuple(
            DeploymentState(
                name=standing.name,
                answered=standing.answered,
                failed=standing.failed,
                retries=standing.retries,
                is_open=standing.breaker.state is State.OPEN,
            )
            for standing in self._standings.values()
        )
