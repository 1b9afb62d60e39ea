"""This is where the console is opened from the command line: a one-time link of the running box, and the browser."""

import os
import sys
import webbrowser
from typing import Annotated

import typer

from qwenbox.app.console import PATH, box_address
from qwenbox.cli.administration import ask
from qwenbox.cli.console import out, settings
from qwenbox.client.admin import AdminClient
from qwenbox.client.sign_in import LoginLink
from qwenbox.terms.errors import ApiError, ErrorKind

Address = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="QWENBOX_ADMIN_URL",
        help="Address of the box, asked with QWENBOX_ADMIN_KEY; nothing: the one your settings name.",
        show_default=False,
    ),
]


def console(
    url: Address = "", no_open: Annotated[bool, typer.Option("--no-open", help="Print the link only, do not start a browser.")] = False
) -> None:
    """Open the running box's console in your browser, already signed in. The link is good for one browser, within 24 hours.

    Example: `qwenbox console --no-open`
    """
    address = (url or box_address(settings())).rstrip("/")

    async def make(admin: AdminClient) -> LoginLink:
        try:
            return await admin.login_link()
        except ApiError as error:
            if error.kind is ErrorKind.OVERLOADED and "cannot be reached" in error.message:
                raise ApiError(error.kind, f"No box answers at {address}. Start one: qwenbox serve") from error
            raise

    link = f"{address}{PATH}?token={ask(address, make).token}"
    out.print(link, markup=False)
    if not no_open and _has_browser():
        webbrowser.open(link)


def _has_browser() -> bool:
    """Whether there is a screen, or a browser was named: one in the terminal would not do, as pages are made by scripts."""
    return sys.platform != "linux" or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
