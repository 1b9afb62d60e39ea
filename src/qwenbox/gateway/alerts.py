"""This is where somebody is told that a month's budget is nearly spent, once."""

import logging
from collections.abc import Callable

from qwenbox.gateway.counters.base import PurseState

_LOG = logging.getLogger(__name__)

_SPENT = "spent/"


class Alerts:
    """Hears of every purse that a call has changed, and warns when a budget's share is reached: once a purse and process.

    share: of the budget, `[money] alert_share`. budget: what the account or key of an id may spend in a month, None without end.
    """

    def __init__(self, share: float, budget: Callable[[str], int | None]) -> None:
        self._share = share
        self._budget = budget
        # Past the share, by owner; a new month takes the place of the old one, so this does not grow with time.
        self._told: dict[str, str] = {}

    @property
    def purses(self) -> tuple[str, ...]:
        """Ids of the purses that were past the share when they last changed."""
        return tuple(self._told.values())

    def hear(self, states: tuple[PurseState, ...]) -> None:
        for state in states:
            if not state.id.startswith(_SPENT):
                continue
            owner, _, month = state.id.removeprefix(_SPENT).partition("/")
            budget = self._budget(owner)
            if budget is None or -state.amount_micros < self._share * budget:
                self._told.pop(owner, None)
            elif self._told.get(owner) != state.id:
                self._told[owner] = state.id
                _LOG.warning("%s has spent %d of the %d micro-units it may spend in %s", owner, -state.amount_micros, budget, month)
