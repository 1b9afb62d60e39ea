"""This is where a page finds what it is given: whom to ask, its visitor's language, how trouble is told."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import ParamSpec

from nicegui import ui

from qwenbox.client.sign_in import Session
from qwenbox.console.house import House
from qwenbox.console.texts import Texts
from qwenbox.terms.errors import ApiError, ErrorKind

P = ParamSpec("P")


class View:
    """One open page. t: its words. session: who looks. is_dark: None follows the machine. base_url: what the visitor's programs need."""

    def __init__(self, house: House, t: Texts, session: Session, is_dark: bool | None, base_url: str) -> None:
        self.house = house
        self.base_url = base_url
        self.admin = house.admin
        self.t = t
        self.session = session
        self.is_dark = is_dark

    def handler(self, run: Callable[P, Awaitable[None] | None]) -> Callable[P, Awaitable[None]]:
        """The same event handler, whose ApiError is told to the visitor; what nobody expected is told as such, and logged."""

        # With its signature, by which NiceGUI sees whether it wants the event.
        @functools.wraps(run)
        async def handle(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                done = run(*args, **kwargs)
                if inspect.isawaitable(done):
                    await done
            except ApiError as error:
                self.tell_trouble(error)
            except Exception:
                self.tell_trouble(ApiError(ErrorKind.INTERNAL, self.t("Something went wrong here. Please reload the page and try again.")))
                raise

        return handle

    def tell_trouble(self, error: ApiError) -> None:
        ui.notify(error.message or error.kind.value, type="negative", multi_line=True, close_button=self.t("Close"), timeout=8_000)

    def tell(self, text: str) -> None:
        ui.notify(text, type="positive")

    def every(self, seconds: float, run: Callable[[], Awaitable[None]]) -> ui.timer:
        """Run it now and then while the page is open. A box that does not answer is told once, not at every turn."""
        is_down = False

        async def turn() -> None:
            nonlocal is_down
            try:
                await run()
                is_down = False
            except ApiError as error:
                if not is_down:
                    self.tell_trouble(error)
                is_down = True

        return ui.timer(seconds, turn)
