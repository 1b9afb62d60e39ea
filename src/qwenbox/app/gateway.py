"""This is where the decisions are put together: whose turn it is, what a call may use, who is asked, what was used."""

import logging

from qwenbox.app.counting import AnyCounters
from qwenbox.app.office import Office
from qwenbox.config import Config
from qwenbox.gateway.admission import Admission
from qwenbox.gateway.alerts import Alerts
from qwenbox.gateway.attempts.standing import AttemptsConfig, Standings
from qwenbox.gateway.catalog import Catalog
from qwenbox.gateway.limits import Tiers
from qwenbox.gateway.metering import Metering
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.prefixes import Prefixes
from qwenbox.gateway.recordings import Recordings
from qwenbox.gateway.router import Router
from qwenbox.gateway.scheduler import Turns

_LOG = logging.getLogger(__name__)


def build_gateway(config: Config, office: Office, catalog: Catalog, counters: AnyCounters, turns: Turns) -> Gateway:
    """One frame for every call to the models of `catalog`. turns: whose it is on a busy engine."""
    admission = Admission(counters, Tiers(config.limits, config.tier), office.prices, office.journal, office.clock)
    metering = Metering(office.journal, admission, office.clock, Alerts(config.money.alert_share, office.keys.budget).hear)
    standings = Standings(AttemptsConfig(retries=config.retries, breaker=config.breaker), office.clock)
    gateway = Gateway(catalog, Router(config.scheduler, turns, standings), admission, metering, config.compat)
    if config.prefixes.enabled:
        gateway.watch_prefixes(Prefixes())
    if config.recording.enabled:
        _LOG.warning("[recording] is on: every prompt and answer is kept for %d days.", config.recording.keep_days)
        metering.record(Recordings(office.database, config.recording, office.clock))
    return gateway
