"""This is where the admin API is put together, over a running box or over its data folder alone."""

from qwenbox.app.cache import cache_beside
from qwenbox.app.office import Office
from qwenbox.config import Config
from qwenbox.gateway.cache.cache import Cache
from qwenbox.gateway.recordings import Recordings
from qwenbox.gateway.sign_in import SignIn
from qwenbox.server.admin.api import AdminApi
from qwenbox.server.admin.guard import AdminKey, Guard
from qwenbox.server.admin.parts import AdminParts, Live


def admin_api(config: Config, office: Office, key: AdminKey, live: Live | None = None, cache: Cache | None = None) -> AdminApi:
    """The admin API of a running box, or of its data folder alone (live, cache: None)."""
    parts = AdminParts(
        accounts=office.accounts,
        sign_in=sign_in(config, office, key),
        keys=office.keys,
        ledger=office.ledger,
        statements=office.statements,
        prices=office.prices,
        cache=cache or cache_beside(config, office),
        clock=office.clock,
        recordings=Recordings(office.database, config.recording, office.clock),
        alert_share=config.money.alert_share,
        live=live,
        test_clock=office.shared_clock,
    )
    return AdminApi(parts, Guard(key, config.server.host, office.accounts.log_in, office.clock), config.admin.body_limit_bytes)


def sign_in(config: Config, office: Office, key: AdminKey) -> SignIn:
    """How people get into the console. key: of the box."""
    return SignIn(office.database, office.accounts, office.clock, key.secret, config.console.session_hours * 3_600)
