"""This is where accounts are kept: made, changed, paid into; and an administrator's password set.

For tests: create-account, accounts (the table); a row's buttons are called "Change NAME", "Top up NAME" and "Password of NAME" · in the
dialogs account-name, account-role, account-tier, account-zone, account-budget, account-prepaid, account-submit · top-up-amount,
top-up-note, top-up-submit · account-password, account-password-set.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence

import msgspec
from nicegui import ui

from qwenbox.client.budgets import AccountBudget, BudgetsAsked
from qwenbox.client.shapes import Account, AccountChange, NewAccount, TierLimits, TopUp
from qwenbox.console import figures, parts
from qwenbox.console.pages import password
from qwenbox.console.texts import Texts
from qwenbox.console.view import View
from qwenbox.terms.errors import ApiError, ErrorKind

_ROLES = {"member": "uses the API", "admin": "administers this box"}


class Accounts:
    """The table. tell: who else shows accounts."""

    def __init__(self, view: View, tell: Callable[[], Awaitable[None]]) -> None:
        self._view = view
        self._tell = tell

    async def build(self) -> None:
        t = self._view.t
        with ui.element("div").classes("row between"):
            ui.label(t("An account pays for the calls of its keys; its limits and budget are shared by all of them.")).classes("muted grow")
            make = self._view.handler(lambda: self._edit(None))
            ui.button(t("Create account"), icon="add", on_click=make).props("unelevated data-testid=create-account")
        self._table = ui.element("div").classes("stack")
        await self.changed()

    async def changed(self) -> None:
        view, t = self._view, self._view.t
        accounts = await view.admin.accounts()
        budgets = {budget.account_id: budget for budget in (await view.admin.budgets(BudgetsAsked(limit=1_000))).items}
        self._currency = (await view.admin.prices()).currency
        self._table.clear()
        with self._table:
            if not accounts:
                parts.empty(view, t("There is no account yet; the first key makes one."))
                return
            headers = (t("Name"), t("Role"), t("Tier"), t("Balance"), t("Spent this month"), t("Budget a month"), t("Time zone"), "")
            rows = [self._row(account, budgets.get(account.id)) for account in accounts]
            parts.table(headers, rows, mark="accounts", numbers=frozenset({3, 4, 5}))

    def _row(self, account: Account, budget: AccountBudget | None) -> list[parts.Cell]:
        t, handler = self._view.t, self._view.handler

        async def change() -> None:
            await self._edit(account)

        currency = self._currency
        paid = t("prepaid") if account.is_prepaid else t("pays later")
        balance = f"{figures.money(budget.balance_micros, currency)} · {paid}" if budget else paid
        buttons = [
            ("edit", t("Change {name}", name=account.name), handler(change)),
            ("add_card", t("Top up {name}", name=account.name), handler(lambda: self._top_up(account, currency))),
        ]
        if account.role == "admin":
            buttons.append(("password", t("Password of {name}", name=account.name), handler(lambda: self._password(account))))
        return [
            account.name,
            t("administrator") if account.role == "admin" else t("member"),
            account.tier or t("the box's"),
            balance,
            figures.money(budget.spent_micros, currency) if budget else "–",
            figures.money(account.budget_micros, currency) if account.budget_micros is not None else t("without end"),
            account.time_zone,
            parts.actions(*buttons),
        ]

    async def _edit(self, account: Account | None) -> None:
        t, view = self._view.t, self._view
        tiers = await view.admin.tiers()
        title = t("Change {name}", name=account.name) if account else t("Create account")
        with parts.dialog(title) as dialog:
            parts.text("h2", title, "break")
            with ui.element("form").classes("stack").on("submit.prevent", view.handler(lambda: save())):
                fields = _Fields(view, account, tiers, self._currency)
                with ui.element("div").classes("row end"):
                    ui.button(t("Cancel"), on_click=dialog.close).props("flat type=button")
                    ui.button(t("Save") if account else t("Create")).props("unelevated type=submit data-testid=account-submit")

        async def save() -> None:
            if account is None:
                await view.admin.create_account(fields.wanted())
            else:
                await view.admin.change_account(account.id, fields.change())
            dialog.close()
            await self._all_changed()

        dialog.open()

    async def _top_up(self, account: Account, currency: str) -> None:
        t, view = self._view.t, self._view
        # A form that is sent twice is paid once.
        reference = f"console-{secrets.token_hex(12)}"
        title = t("Top up {name}", name=account.name)
        with parts.dialog(title) as dialog:
            parts.text("h2", title, "break")
            with ui.element("form").classes("stack").on("submit.prevent", view.handler(lambda: pay())):
                amount = ui.number(t("Amount ({currency})", currency=currency), min=0).props(
                    "autofocus outlined dense step=any data-testid=top-up-amount"
                )
                note = ui.input(t("Note"), placeholder=t("e.g. an invoice's number")).props(
                    "outlined dense maxlength=500 data-testid=top-up-note"
                )
                with ui.element("div").classes("row end"):
                    ui.button(t("Cancel"), on_click=dialog.close).props("flat type=button")
                    ui.button(t("Top up")).props("unelevated type=submit data-testid=top-up-submit")

        async def pay() -> None:
            micros = parts.micros(amount) or 0
            if micros <= 0:
                raise ApiError(ErrorKind.INVALID_REQUEST, t("Please say how much."))
            state = await view.admin.top_up(account.id, TopUp(amount_micros=micros, note=(note.value or "").strip(), reference=reference))
            dialog.close()
            view.tell(t("The balance is {amount} now.", amount=figures.money(state.balance_micros, currency)))
            await self._all_changed()

        dialog.open()

    async def _password(self, account: Account) -> None:
        t, view = self._view.t, self._view
        title = t("Password of {name}", name=account.name)
        with parts.dialog(title) as dialog:
            parts.text("h2", title, "break")
            ui.label(t("It ends this account's sessions, but for the one it is changed from.")).classes("muted")
            with ui.element("form").classes("stack").on("submit.prevent", view.handler(lambda: change())):
                chosen = ui.input(t("New password"), password=True, password_toggle_button=True)
                chosen.props('autofocus outlined dense autocomplete="new-password" data-testid=account-password')
                with ui.element("div").classes("row end"):
                    ui.button(t("Cancel"), on_click=dialog.close).props("flat type=button")
                    ui.button(t("Set password")).props("unelevated type=submit data-testid=account-password-set")

        async def change() -> None:
            await password.change(view, account.id, password.checked(view.t, chosen.value or ""))
            dialog.close()
            view.tell(t("The password is set."))

        dialog.open()

    async def _all_changed(self) -> None:
        await self.changed()
        await self._tell()


class _Fields:
    """What a person may say of an account. tiers: that it can be in. currency: of its budget."""

    def __init__(self, view: View, account: Account | None, tiers: Sequence[TierLimits], currency: str) -> None:
        t = view.t
        self._view = view
        self._name = ui.input(t("Name"), value=account.name if account else "").props(
            "outlined dense maxlength=200 data-testid=account-name"
        )
        if account is None:
            self._name.props("autofocus")
        roles = {name: t(said) for name, said in _ROLES.items()}
        budget = account.budget_micros / 1_000_000 if account and account.budget_micros is not None else None
        with ui.element("div").classes("grid-fields"):
            self._role = ui.select(roles, label=t("Role"), value=account.role if account else "member")
            self._role.props("outlined dense data-testid=account-role")
            own = account.tier if account else ""
            self._tier = ui.select(_offered(t, tiers, own), label=t("Tier"), value=own).props("outlined dense data-testid=account-tier")
            self._budget = ui.number(t("Budget a month ({currency})", currency=currency), min=0, value=budget).props(
                "outlined dense clearable"
            )
            self._budget.props("step=any data-testid=account-budget")
            self._zone = ui.input(t("Time zone"), value=account.time_zone if account else "UTC")
            self._zone.props('outlined dense data-testid=account-zone placeholder="Asia/Shanghai"')
        self._prepaid = ui.checkbox(t("Prepaid: calls are refused once the balance is used up"), value=bool(account and account.is_prepaid))
        self._prepaid.props("data-testid=account-prepaid")

    def _named(self) -> str:
        name = (self._name.value or "").strip()
        if not name:
            raise ApiError(ErrorKind.INVALID_REQUEST, self._view.t("Please give the account a name."))
        return name

    def wanted(self) -> NewAccount:
        return NewAccount(**msgspec.structs.asdict(self.change()))

    def change(self) -> AccountChange:
        """All of it, as it stands in the fields."""
        return AccountChange(
            name=self._named(),
            role="admin" if self._role.value == "admin" else "member",
            tier=self._tier.value or "",
            time_zone=(self._zone.value or "").strip() or "UTC",
            is_prepaid=bool(self._prepaid.value),
            budget_micros=parts.micros(self._budget),
        )


def _offered(t: Texts, tiers: Sequence[TierLimits], own: str) -> dict[str, str]:
    """What can be chosen, by name, each with its limits; also the account's own one that the settings have no longer."""
    default = next((tier.name for tier in tiers if tier.is_default), "")
    told = {tier.name: f"{tier.name} · {_limits(t, tier)}" for tier in tiers}
    gone = {} if not own or own in told else {own: t("{name}: the box has no such tier", name=own)}
    return {"": t("the box's ({name})", name=default), **told, **gone}


def _limits(t: Texts, tier: TierLimits) -> str:
    said = [
        f"{figures.count(tier.rpm)} RPM" if tier.rpm is not None else "",
        f"{figures.count(tier.tpm)} TPM" if tier.tpm is not None else "",
        t("{count} at once", count=figures.count(tier.concurrency)) if tier.concurrency is not None else "",
    ]
    return " · ".join(filter(None, said)) or t("no limit")
