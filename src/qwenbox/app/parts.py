"""This is where endpoints are given what they work with: the gateway, and what is stored for callers on the box's database."""

import secrets

from qwenbox.app.office import Office
from qwenbox.config import Config
from qwenbox.files import Files
from qwenbox.gateway.conversations import Conversations
from qwenbox.gateway.pipeline import Gateway
from qwenbox.gateway.settings import Settings
from qwenbox.gateway.short_lived import ShortLivedKeys, shared_secret
from qwenbox.jobs.batches import Batches
from qwenbox.jobs.results import Results, results_secret
from qwenbox.jobs.tasks import Tasks
from qwenbox.jobs.wakeup import Wakeup
from qwenbox.server.exchange import Hangups
from qwenbox.server.parts import Parts
from qwenbox.terms.secret import Secret
from qwenbox.uploads import SIGNING, Uploads


async def build_parts(config: Config, office: Office, gateway: Gateway) -> Parts:
    """Secrets that sign links and short-lived keys are the box's own, the same in all of its processes."""
    database, clock, settings = office.database, office.clock, Settings(office.database)
    files = Files(database, config.home / "files", config.files, clock)
    signing = Secret(await settings.once(SIGNING, secrets.token_hex(32)))
    return Parts(
        gateway=gateway,
        conversations=Conversations(database, config.conversations, clock),
        files=files,
        uploads=Uploads(database, config.home / "uploads", config.uploads, clock, signing),
        batches=Batches(database, files, clock, office.prices.currency, Wakeup()),
        tasks=Tasks(database, config.tasks, clock, Wakeup()),
        results=Results(database, config.home / "results", config.results, await results_secret(settings), clock),
        keys=office.keys,
        short_lived=ShortLivedKeys(await shared_secret(settings), office.keys, clock),
        prices=office.prices,
        config=config.server,
        hangups=Hangups(),
        provokes=config.provokes,
    )
