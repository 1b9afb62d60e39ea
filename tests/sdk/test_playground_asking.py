"""An answer of the playground, asked of a real box with the console's own key."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest

from boxes import Box
from conftest import Serve
from qwenbox.client.admin import open_remote
from qwenbox.console.house import House
from qwenbox.console.own_keys import NAME
from qwenbox.console.pages.playground.asking import Hearing
from qwenbox.console.pages.playground.request import Body, Question, Wishes, body
from qwenbox.terms.events import ChatEvent
from qwenbox.terms.secret import Secret

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def _house(box: Box) -> AsyncGenerator[House]:
    key = Secret((box.home / "admin.key").read_text().strip())
    async with open_remote(box.base_url, key) as admin:
        house = House(admin, box.base_url)
        async with house.own_keys:
            yield house


def _asked(text: str, temperature: float = 0) -> Body:
    return body(Wishes(model="qwen-turbo", temperature=temperature), [Question(text=text)])


async def test_an_answer_is_heard_with_what_it_took_and_cost(box: Box) -> None:
    hearing = Hearing("qwen-turbo")
    async with _house(box) as house:
        await hearing.listen(house, "", _asked("hello"))
    receipt = hearing.receipt
    assert ("Echo: hello", "stop", None, True) == (hearing.text, hearing.reason, hearing.trouble, hearing.is_over)
    assert receipt is not None and receipt.call.id == hearing.request_id
    assert hearing.usage is not None and receipt.call.output_tokens == hearing.usage.output_tokens


async def test_what_the_box_refuses_is_told_with_its_code(box: Box) -> None:
    hearing = Hearing("qwen-turbo")
    async with _house(box) as house:
        await hearing.listen(house, "", _asked("hello", temperature=9))
    assert hearing.trouble is not None and hearing.is_over and hearing.request_id
    assert ("invalid_parameter_error · HTTP 400", True) == (hearing.trouble.code, "Temperature" in hearing.trouble.message)


async def test_nobody_to_pay_is_told(box: Box) -> None:
    hearing = Hearing("qwen-turbo")
    async with _house(box) as house:
        await hearing.listen(house, "nobody", _asked("hello"))
    assert hearing.trouble is not None and "not_found" == hearing.trouble.code


async def test_a_key_that_somebody_revoked_is_replaced(box: Box) -> None:
    hearing = Hearing("qwen-turbo")
    async with _house(box) as house:
        first = await house.own_keys.key()
        for key in await house.admin.keys():
            if key.name == NAME and key.revoked_at is None:
                await house.admin.revoke_key(key.id)
        # Every process of a box has heard of it within two seconds.
        refused = Hearing("qwen-turbo")
        with anyio.fail_after(60):
            while await house.own_keys.key() == first:
                refused = Hearing("qwen-turbo")
                await refused.listen(house, "", _asked("hello"))
        assert refused.trouble is None
        await hearing.listen(house, "", _asked("again"))
    assert "Echo: again" == hearing.text


async def test_stop_hangs_up_and_what_came_is_billed(serve: Serve) -> None:
    box = serve(toml='[engine.echo]\nkind = "echo"\ndelay_s = 0.02\n')
    begun = anyio.Event()

    class Heard(Hearing):
        def add(self, event: ChatEvent) -> None:
            super().add(event)
            if self.is_begun:
                begun.set()

    hearing = Heard("qwen-turbo")
    async with _house(box) as house, anyio.create_task_group() as tasks:
        tasks.start_soon(hearing.listen, house, "", _asked("word " * 500))
        with anyio.fail_after(30):
            await begun.wait()
        hearing.stop()
    assert hearing.was_stopped and hearing.trouble is None and hearing.receipt is not None
    assert "hung_up" == hearing.receipt.call.outcome and 0 < hearing.receipt.call.output_tokens < 500
    assert hearing.receipt.call.cost_micros > 0
