"""This is where a person who came in by a link chooses account and password for the next time, and where any password is changed.

For tests: password-account, password-new, password-again, password-set.
"""

from nicegui import ui

from qwenbox.client.shapes import LEAST_PASSWORD, NewAccount
from qwenbox.console.texts import Texts
from qwenbox.console.view import View
from qwenbox.terms.errors import ApiError, ErrorKind
from qwenbox.terms.secret import Secret


async def build(view: View) -> None:
    t = view.t
    with ui.element("form").classes("card stack narrow").on("submit.prevent", view.handler(lambda: set_it())):
        ui.label(t("With account and password you log in here from any browser that reaches the console."))
        name = ui.input(t("Account"), value=view.session.account or "admin").props(
            'outlined autocomplete="username" data-testid=password-account'
        )
        first = ui.input(t("New password"), password=True, password_toggle_button=True).props(
            'outlined autocomplete="new-password" data-testid=password-new'
        )
        second = ui.input(t("New password again"), password=True, password_toggle_button=True).props(
            'outlined autocomplete="new-password" data-testid=password-again'
        )
        ui.button(t("Set password")).props("type=submit unelevated no-caps data-testid=password-set")

    async def set_it() -> None:
        account, chosen = (name.value or "").strip(), checked(t, first.value or "")
        if not account:
            raise ApiError(ErrorKind.INVALID_REQUEST, t("Please give the account a name."))
        if chosen.reveal() != second.value:
            raise ApiError(ErrorKind.INVALID_REQUEST, t("The two passwords are not the same."))
        await _make_admin(view, account)
        await change(view, account, chosen)
        first.value = second.value = ""
        view.tell(t("The password is set."))


def checked(t: Texts, typed: str) -> Secret:
    """A new password as it was typed. Raises ApiError(INVALID_REQUEST) for one that is too short."""
    if len(typed) < LEAST_PASSWORD:
        raise ApiError(ErrorKind.INVALID_REQUEST, t("A password has at least {count} characters.", count=LEAST_PASSWORD))
    return Secret(typed)


async def change(view: View, account: str, password: Secret) -> None:
    """It ends the account's sessions, but for the one of this visitor."""
    await view.admin.set_password(account, password, Secret(view.session.token))


async def _make_admin(view: View, name: str) -> None:
    try:
        account = await view.admin.account(name)
    except ApiError as error:
        if error.kind is not ErrorKind.NOT_FOUND:
            raise
        await view.admin.create_account(NewAccount(name=name, role="admin"))
        return
    if account.role != "admin":
        # Whoever holds this account's keys would become an administrator without having been asked.
        told = "“{name}” is no administrator; choose another name, or make it one: qwenbox accounts set {name} --role admin"
        raise ApiError(ErrorKind.CONFLICT, view.t(told, name=name))
