"""This is where API keys are made, shown once, limited and revoked."""

import time
from collections.abc import Callable
from typing import TypeAlias

from nicegui import ui

from qwenbox.client.shapes import IssuedKey, Key, NewAccount, NewKey
from qwenbox.console import figures, parts
from qwenbox.console.view import View
from qwenbox.terms.errors import ApiError, ErrorKind

_DAY_S = 86_400

Refresh: TypeAlias = Callable[[], object]

_EXPIRIES = {0: "Never", 1: "In a day", 30: "In 30 days", 90: "In 90 days", 365: "In a year"}


async def build(view: View) -> None:
    t = view.t
    with ui.element("div").classes("row between"):
        ui.label(t("A key names the account that pays, and what its bearer may use.")).classes("muted")
        ui.button(t("Create key"), icon="add", on_click=view.handler(lambda: _create(view, listed.refresh))).props(
            "unelevated data-testid=create-key"
        )
    with ui.element("div").classes("row"):
        shows_revoked = ui.checkbox(t("Show revoked keys"), on_change=lambda: listed.refresh())

    @ui.refreshable
    async def listed() -> None:
        accounts = {account.id: account.name for account in await view.admin.accounts()}
        keys = [key for key in await view.admin.keys() if shows_revoked.value or key.revoked_at is None]
        if not keys:
            parts.empty(view, t("There is no key yet."), "qwenbox keys create")
            return
        headers = (t("Name"), t("Account"), t("Key"), t("Created"), t("Expires"), t("Limits"), t("Models"), "")
        parts.table(headers, [_row(view, key, accounts, listed.refresh) for key in reversed(keys)], mark="keys")

    await listed()


def _row(view: View, key: Key, accounts: dict[str, str], refresh: Refresh) -> list[parts.Cell]:
    t = view.t

    def state() -> None:
        if key.revoked_at is not None:
            ui.label(t("revoked")).classes("tag bad")
        elif key.expires_at is not None and key.expires_at < time.time():
            ui.label(t("expired")).classes("tag warn")
        else:
            ui.label(figures.moment(key.expires_at) if key.expires_at else t("never"))

    async def revoke() -> None:
        question = t("Revoke the key “{name}”? Calls with it are refused within two seconds, for good.", name=key.name)
        if await parts.ask(view, question, t("Revoke"), is_dangerous=True):
            await view.admin.revoke_key(key.id)
            refresh()

    buttons = () if key.revoked_at else (("block", t("Revoke {name}", name=key.name), view.handler(revoke)),)
    return [
        key.name,
        accounts.get(key.account_id, key.account_id),
        lambda: parts.text("code", f"{key.prefix}…"),
        figures.moment(key.created_at),
        state,
        _limits(view, key),
        ", ".join(key.models) if key.models else t("all"),
        parts.actions(*buttons),
    ]


def _limits(view: View, key: Key) -> str:
    told = [
        f"{figures.count(key.rpm)} RPM" if key.rpm is not None else "",
        f"{figures.count(key.tpm)} TPM" if key.tpm is not None else "",
        view.t("{count} at once", count=key.concurrency) if key.concurrency is not None else "",
        view.t("{amount} a month", amount=figures.money(key.budget_micros)) if key.budget_micros is not None else "",
    ]
    return " · ".join(filter(None, told)) or view.t("the account's")


class _Form:
    """What a person may say of a new key."""

    def __init__(self, view: View, accounts: list[str]) -> None:
        t = view.t
        self.name = ui.input(t("Name"), placeholder=t("e.g. billing service")).props("autofocus outlined dense data-testid=key-name")
        self.account = ui.select(accounts, label=t("Account"), value=accounts[0]).props("outlined dense data-testid=key-account")
        self.expiry = ui.select({days: t(said) for days, said in _EXPIRIES.items()}, label=t("Expires"), value=0).props("outlined dense")
        with ui.expansion(t("Limits of its own")).classes("w-full"), ui.element("div").classes("grid-3"):
            self.rpm = _number(t("Requests a minute"))
            self.tpm = _number(t("Tokens a minute"))
            self.concurrency = _number(t("Calls at once"))
            self.budget = _number(t("Budget a month (CNY)"))
            self.models = ui.input(t("Models, by commas"), placeholder=t("all")).props("outlined dense")

    def wanted(self, view: View) -> NewKey:
        name = (self.name.value or "").strip()
        if not name:
            raise ApiError(ErrorKind.INVALID_REQUEST, view.t("Please give the key a name."))
        models = tuple(filter(None, (name.strip() for name in (self.models.value or "").split(","))))
        days = int(self.expiry.value or 0)
        return NewKey(
            account=self.account.value,
            name=name,
            expires_at=time.time() + days * _DAY_S if days else None,
            rpm=_whole(self.rpm.value),
            tpm=_whole(self.tpm.value),
            concurrency=_whole(self.concurrency.value),
            budget_micros=None if self.budget.value is None else round(self.budget.value * 1_000_000),
            models=models or None,
        )


def _number(label: str) -> ui.number:
    return ui.number(label, min=0).props("outlined dense clearable")


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


async def _create(view: View, refresh: Refresh) -> None:
    t = view.t
    accounts = [account.name for account in await view.admin.accounts()]
    if not accounts:
        accounts = [(await view.admin.create_account(NewAccount(name="default"))).name]
    with parts.dialog(t("Create key")) as dialog:
        parts.text("h2", t("Create key"))
        with ui.element("form").classes("stack").on("submit.prevent", view.handler(lambda: create())):
            form = _Form(view, accounts)
            with ui.element("div").classes("row end"):
                ui.button(t("Cancel"), on_click=dialog.close).props("flat type=button")
                ui.button(t("Create")).props("unelevated type=submit data-testid=key-submit")

    async def create() -> None:
        issued = await view.admin.create_key(form.wanted(view))
        dialog.close()
        refresh()
        _show_once(view, issued)

    dialog.open()


def _show_once(view: View, issued: IssuedKey) -> None:
    t, base = view.t, view.base_url
    with parts.dialog(t("Your new key"), is_persistent=True) as dialog:
        parts.text("h2", t("Your new key"))
        ui.label(t("Copy it now: it is stored hashed and not shown again."))
        parts.copyable(view, issued.secret, mark="new-key")
        ui.label(t("For dashscope and openai:")).classes("muted")
        lines = {
            "DASHSCOPE_HTTP_BASE_URL": f"{base}/api/v1",
            "DASHSCOPE_API_KEY": issued.secret,
            "OPENAI_BASE_URL": f"{base}/compatible-mode/v1",
            "OPENAI_API_KEY": issued.secret,
        }
        parts.copyable(view, "\n".join(f"export {name}={value}" for name, value in lines.items()))
        with ui.element("div").classes("row end"):
            ui.button(t("I have copied it"), on_click=dialog.close).props("unelevated autofocus data-testid=key-copied")
    dialog.open()
