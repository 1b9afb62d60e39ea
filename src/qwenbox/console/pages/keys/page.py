"""This is where API keys are made, changed and revoked, and the accounts that pay for them kept.

For tests: tabs tab-keys, tab-accounts · create-key, keys-search, keys-account, keys-revoked, keys (the table); a row's buttons are called
"Change NAME" and "Revoke NAME", the question's answer is `confirm` · in the dialogs those of form.py, created.py and accounts.py.
"""

import time

from nicegui import ui

from qwenbox.client.budgets import AccountBudget, BudgetsAsked
from qwenbox.client.shapes import Key
from qwenbox.console import figures, parts
from qwenbox.console.own_keys import is_ours
from qwenbox.console.pages.keys import accounts, created
from qwenbox.console.pages.keys.form import Form, account_choices
from qwenbox.console.view import View

# Of a longer table the newest; the search finds the rest.
_MOST_ROWS = 200


async def build(view: View) -> None:
    t = view.t
    with ui.tabs().props("no-caps align=left dense").classes("tabs") as tabs:
        keys_tab = ui.tab("keys", label=t("Keys")).props("data-testid=tab-keys")
        ui.tab("accounts", label=t("Accounts")).props("data-testid=tab-accounts")
    list_of_keys = _Keys(view)
    list_of_accounts = accounts.Accounts(view, list_of_keys.changed)
    with ui.tab_panels(tabs, value=keys_tab).classes("panels"):
        with ui.tab_panel("keys").classes("stack"):
            await list_of_keys.build()
        with ui.tab_panel("accounts").classes("stack"):
            await list_of_accounts.build()
    list_of_keys.tell = list_of_accounts.changed


class _Keys:
    """The table, with what narrows it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.tell = self._nobody

    async def _nobody(self) -> None:
        """Who else shows what a key changes: the accounts, once they are there."""

    async def build(self) -> None:
        t, handler = self._view.t, self._view.handler
        with ui.element("div").classes("row between"):
            ui.label(t("A key names the account that pays, and what its bearer may use.")).classes("muted grow")
            ui.button(t("Create key"), icon="add", on_click=handler(self._create)).props("unelevated data-testid=create-key")
        with ui.element("div").classes("row"):
            self._search = ui.input(t("Search"), placeholder=t("name or beginning of the key"), on_change=handler(self._show))
            self._search.props('outlined dense clearable debounce=200 type=search data-testid="keys-search"').classes("filter")
            self._account = ui.select({"": t("All accounts")}, value="", label=t("Account"), on_change=handler(self._show))
            self._account.props("outlined dense data-testid=keys-account").classes("filter")
            self._shows_all = ui.checkbox(t("Also revoked ones, and the console's own"), on_change=handler(self._show))
            self._shows_all.props("data-testid=keys-revoked")
        self._table = ui.element("div").classes("stack")
        await self.changed()

    async def changed(self) -> None:
        """Something was: ask the box anew."""
        view = self._view
        self._keys = await view.admin.keys()
        self._accounts = {account.id: account for account in await view.admin.accounts()}
        self._currency = (await view.admin.prices()).currency
        self._budgets = {budget.account_id: budget for budget in (await view.admin.budgets(BudgetsAsked(limit=1_000))).items}
        names = {account.name: account.name for account in self._accounts.values()}
        chosen = self._account.value if self._account.value in names else ""
        parts.offer(self._account, {"": view.t("All accounts"), **names}, chosen)
        await self._show()

    async def _show(self) -> None:
        t = self._view.t
        found = [key for key in reversed(self._keys) if self._is_wanted(key)]
        self._table.clear()
        with self._table:
            if not found:
                is_any = any(not is_ours(key) for key in self._keys)
                parts.empty(self._view, t("No key is like that.") if is_any else t("There is no key yet."))
                return
            headers = (t("Name"), t("Account"), t("Key"), t("Spent this month"), t("Limits"), t("Models"), t("Expires"), t("Created"), "")
            rows = [self._row(key) for key in found[:_MOST_ROWS]]
            parts.table(headers, rows, mark="keys", numbers=frozenset({3}))
            if len(found) > _MOST_ROWS:
                ui.label(t("These are the newest {count} of {total}.", count=_MOST_ROWS, total=len(found))).classes("muted")

    def _is_wanted(self, key: Key) -> bool:
        if not self._shows_all.value and (key.revoked_at is not None or is_ours(key)):
            return False
        account, text = self._accounts.get(key.account_id), (self._search.value or "").strip().lower()
        if self._account.value and (account is None or account.name != self._account.value):
            return False
        return (
            not text or text in key.name.lower() or ((len(text) >= 3 and text.startswith(key.prefix.lower())) or text in key.prefix.lower())
        )

    def _row(self, key: Key) -> list[parts.Cell]:
        t, view = self._view.t, self._view
        account = self._accounts.get(key.account_id)
        budget = self._budgets.get(key.account_id)

        async def change() -> None:
            await self._change(key)

        async def revoke() -> None:
            question = t("Revoke the key “{name}”? Calls with it are refused within two seconds, for good.", name=key.name)
            if await parts.ask(view, question, t("Revoke"), is_dangerous=True):
                await view.admin.revoke_key(key.id)
                await self._all_changed()

        buttons = (
            ("edit", t("Change {name}", name=key.name), view.handler(change)),
            ("block", t("Revoke {name}", name=key.name), view.handler(revoke)),
        )
        return [
            lambda: _name(view, key),
            account.name if account else key.account_id,
            lambda: parts.text("code", f"{key.prefix}…", "nowrap"),
            _spent(key, budget),
            limits(view, key, self._currency),
            ", ".join(key.models) if key.models else t("all"),
            lambda: _expiry(view, key),
            lambda: parts.text("span", figures.moment(key.created_at)[:10], "nowrap"),
            parts.actions(*(() if key.revoked_at is not None or is_ours(key) else buttons)),
        ]

    async def _create(self) -> None:
        t, view = self._view.t, self._view
        choices = account_choices(list(self._accounts.values()))
        models = await view.admin.catalog()
        with parts.dialog(t("Create key")) as dialog:
            parts.text("h2", t("Create key"))
            with ui.element("form").classes("stack").on("submit.prevent", view.handler(lambda: create())):
                form = Form(view, models, choices, self._currency)
                with ui.element("div").classes("row end"):
                    ui.button(t("Cancel"), on_click=dialog.close).props("flat type=button")
                    ui.button(t("Create")).props("unelevated type=submit data-testid=key-submit")

        async def create() -> None:
            issued = await view.admin.create_key(await form.wanted())
            dialog.close()
            created.show(view, issued)
            await self._all_changed()

        dialog.open()

    async def _change(self, key: Key) -> None:
        t, view = self._view.t, self._view
        models = await view.admin.catalog()
        last = await created.last_used(view, key)
        with parts.dialog(t("Change {name}", name=key.name)) as dialog:
            parts.text("h2", t("Change {name}", name=key.name), "break")
            ui.label(last).classes("muted small")
            with ui.element("form").classes("stack").on("submit.prevent", view.handler(lambda: change())):
                form = Form(view, models, (), self._currency, key)
                with ui.element("div").classes("row end"):
                    ui.button(t("Cancel"), on_click=dialog.close).props("flat type=button")
                    ui.button(t("Save")).props("unelevated type=submit data-testid=key-submit")

        async def change() -> None:
            await view.admin.change_key(key.id, form.change())
            dialog.close()
            view.tell(t("Changed; it holds within two seconds."))
            await self._all_changed()

        dialog.open()

    async def _all_changed(self) -> None:
        await self.changed()
        await self.tell()


def limits(view: View, key: Key, currency: str) -> str:
    """Its own ones, in short."""
    told = [
        f"{figures.count(key.rpm)} RPM" if key.rpm is not None else "",
        f"{figures.count(key.tpm)} TPM" if key.tpm is not None else "",
        view.t("{count} at once", count=key.concurrency) if key.concurrency is not None else "",
        view.t("{amount} a month", amount=figures.money(key.budget_micros, currency)) if key.budget_micros is not None else "",
    ]
    return " · ".join(filter(None, told)) or view.t("the account's")


def _name(view: View, key: Key) -> None:
    ui.label(key.name).classes("break")
    if is_ours(key):
        ui.label(view.t("the console's own")).classes("muted small")


def _expiry(view: View, key: Key) -> None:
    t = view.t
    if key.revoked_at is not None:
        ui.label(t("revoked")).classes("tag bad")
    elif key.expires_at is not None and key.expires_at < time.time():
        ui.label(t("expired")).classes("tag warn")
    else:
        ui.label(figures.moment(key.expires_at) if key.expires_at else t("never")).classes("nowrap")


def _spent(key: Key, budget: AccountBudget | None) -> str:
    found = next((one for one in budget.keys if one.key_id == key.id), None) if budget else None
    return figures.money(found.spent_micros, budget.currency) if found is not None and budget is not None else "–"
