"""This is where tasks are shown, listed and cancelled; they are submitted where their calls enter, and run elsewhere (jobs)."""

from qwenbox.dialects.base import Dialect, WireRequest
from qwenbox.server.exchange import Exchange
from qwenbox.server.parts import Parts, missing
from qwenbox.terms.caller import Caller
from qwenbox.terms.job import TaskPicture


async def get(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.tasks or missing(dialect)
    task_id = wire.path_params["id"]

    def link(picture: TaskPicture) -> str:
        return picture.url if picture.kept is None else parts.address(exchange) + parts.results.path(picture.kept)

    await exchange.page(speech.one(await parts.tasks.get(caller.account_id, task_id), task_id, wire.id, link))


async def list_tasks(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.tasks or missing(dialect)
    asked = speech.asked(wire)
    await exchange.page(speech.page(await parts.tasks.page(caller.account_id, asked), asked, wire.id))


async def cancel(parts: Parts, dialect: Dialect, exchange: Exchange, wire: WireRequest, caller: Caller) -> None:
    speech = dialect.tasks or missing(dialect)
    await parts.tasks.cancel(caller.account_id, wire.path_params["id"])
    await exchange.page(speech.cancelled(wire.id))
