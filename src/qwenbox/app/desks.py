"""This is where what is served beside the dialects gets its prefix: the admin API, the way to the console, receipts, uploads, results."""

from qwenbox.dialects.dashscope.dialect import DIALECT as DASHSCOPE
from qwenbox.gateway.statements import Statements
from qwenbox.jobs.results import PREFIX as RESULTS_PREFIX
from qwenbox.server.admin.api import AdminApi
from qwenbox.server.admin.openapi import PREFIX as ADMIN_PREFIX
from qwenbox.server.asgi import Desk
from qwenbox.server.console_door import PREFIX as CONSOLE_PREFIX
from qwenbox.server.console_door import ConsoleDoor
from qwenbox.server.parts import Parts, missing
from qwenbox.server.receipts import PREFIX as RECEIPTS_PREFIX
from qwenbox.server.receipts import Receipts
from qwenbox.server.result_links import ResultLinks
from qwenbox.server.uploads import PREFIX as UPLOADS_PREFIX
from qwenbox.server.uploads import Received


def build_desks(parts: Parts, admin: AdminApi, statements: Statements, console: ConsoleDoor) -> dict[str, Desk]:
    """By the prefix of their paths."""
    return {
        ADMIN_PREFIX: admin,
        CONSOLE_PREFIX: console,
        RECEIPTS_PREFIX: Receipts(statements, parts.verify),
        UPLOADS_PREFIX: Received(parts.uploads, DASHSCOPE.uploads or missing(DASHSCOPE)),
        RESULTS_PREFIX: ResultLinks(parts.results),
    }
