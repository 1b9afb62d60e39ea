"""This is where the fields of a key are: the same for a new one and for one that is changed.

For tests: key-name, key-account, key-new-account, key-expires, key-models, key-rpm, key-tpm, key-concurrency, key-budget, key-cache,
key-history, key-whitespace, key-seeds, key-compat, key-submit.
"""

import time
from collections.abc import Sequence

import msgspec
from msgspec import UNSET, UnsetType
from nicegui import ui

from qwenbox.client.catalog import Model
from qwenbox.client.shapes import Account, Key, KeyChange, NewAccount, NewKey
from qwenbox.console import figures, parts
from qwenbox.console.view import View
from qwenbox.terms.caller import CachePolicy, Compat, SeedPolicy
from qwenbox.terms.errors import ApiError, ErrorKind

_DAY_S = 86_400
_EXPIRIES = {0: "Never", 1: "In a day", 30: "In 30 days", 90: "In 90 days", 365: "In a year"}
_AS_IT_IS, _NEW_ACCOUNT = -1, ""
_CACHES = {"auto": "where the request decides the answer", "all": "always", "off": "none of them"}
_SEEDS = {"exact": "give the same answer, on a lane of their own", "pass": "are handed to the engine"}
_COMPATS = {"": "as the box does", "documented": "the document", "strict": "the live service"}


def account_choices(accounts: Sequence[Account]) -> tuple[str, ...]:
    """Names; who pays mostly comes first, and a new one always can be had."""
    names = [account.name for account in accounts]
    return tuple(sorted(names, key=lambda name: name != "default"))


class Form:
    """accounts: to choose from, for a new key. key: the one that is changed. currency: of budgets."""

    def __init__(self, view: View, models: Sequence[Model], accounts: Sequence[str], currency: str, key: Key | None = None) -> None:
        self._view = view
        self._currency = currency
        self._key = key
        t = view.t
        self.name = ui.input(t("Name"), placeholder=t("e.g. billing service"), value=key.name if key else "")
        self.name.props("autofocus outlined dense maxlength=200 data-testid=key-name")
        if key is None:
            self._accounts(accounts)
        self._expiry(key)
        names = [model.name for model in models if model.name != "*"]
        allowed = list(key.models or ()) if key else []
        self._models = ui.select([*names, *(name for name in allowed if name not in names)], value=allowed, multiple=True)
        self._models.props["label"] = t("Models; none chosen is all")
        self._models.props("outlined dense use-chips clearable data-testid=key-models")
        own = ui.expansion(t("Limits of its own"), value=bool(key and limited(key))).props("data-testid=key-limits")
        with own, ui.element("div").classes("grid-fields"):
            self._limits(key)
        treatment = ui.expansion(t("How its calls are treated")).props("data-testid=key-treatment")
        with treatment, ui.element("div").classes("grid-fields"):
            self._treatment(key)

    def _accounts(self, accounts: Sequence[str]) -> None:
        t = self._view.t
        self._account = ui.select({}, label=t("Account")).props("outlined dense data-testid=key-account")
        self._offer_accounts(accounts, accounts[0] if accounts else _NEW_ACCOUNT)
        self._new_account = ui.input(t("Name of the new account"), value="" if accounts else "default")
        self._new_account.props("outlined dense maxlength=200 data-testid=key-new-account")
        self._new_account.bind_visibility_from(self._account, "value", value=_NEW_ACCOUNT)

    def _offer_accounts(self, names: Sequence[str], chosen: str) -> None:
        self._names = names
        parts.offer(self._account, {**{name: name for name in names}, _NEW_ACCOUNT: self._view.t("A new account …")}, chosen)

    def _expiry(self, key: Key | None) -> None:
        t = self._view.t
        options = {days: t(said) for days, said in _EXPIRIES.items()}
        if key is not None and key.expires_at is not None:
            options = {_AS_IT_IS: t("As it is: {moment}", moment=figures.moment(key.expires_at)), **options}
        first = next(iter(options))
        self._expires = ui.select(options, label=t("Expires"), value=first).props("outlined dense data-testid=key-expires")

    def _limits(self, key: Key | None) -> None:
        t = self._view.t
        budget = key.budget_micros / 1_000_000 if key and key.budget_micros is not None else None
        self._rpm = _number(t("Requests a minute"), key.rpm if key else None, "key-rpm")
        self._tpm = _number(t("Tokens a minute"), key.tpm if key else None, "key-tpm")
        self._concurrency = _number(t("Calls at once"), key.concurrency if key else None, "key-concurrency")
        self._budget = _number(t("Budget a month ({currency})", currency=self._currency), budget, "key-budget", least=0).props("step=any")

    def _treatment(self, key: Key | None) -> None:
        t = self._view.t
        caches, seeds, compats = ({name: t(said) for name, said in of.items()} for of in (_CACHES, _SEEDS, _COMPATS))
        self._cache = _choice(t("Answers from the cache"), caches, key.cache if key else CachePolicy.AUTO, "key-cache")
        self._seeds = _choice(t("Seeds"), seeds, key.seeds if key else SeedPolicy.EXACT, "key-seeds")
        self._compat = _choice(t("Where document and service differ, follow"), compats, (key and key.compat) or "", "key-compat")
        self._history = _number(t("Longest history (tokens)"), key.history_tokens if key else None, "key-history")
        self._whitespace = ui.checkbox(t("Runs of blanks become one"), value=bool(key and key.collapses_whitespace))
        self._whitespace.props("data-testid=key-whitespace")

    async def wanted(self) -> NewKey:
        """What was said of a new key; its account is made, if it is new."""
        said = self.change()
        account = self._account.value
        if account == _NEW_ACCOUNT:
            account = (self._new_account.value or "").strip()
            if not account:
                raise ApiError(ErrorKind.INVALID_REQUEST, self._view.t("Please give the new account a name."))
            account = (await self._view.admin.create_account(NewAccount(name=account))).name
            # If the box refuses the key, the next try finds its account chosen.
            self._offer_accounts([account, *self._names], account)
        # Nothing is unset here: only a key that was there before can keep its expiry.
        return NewKey(account=account, **msgspec.structs.asdict(said))

    def change(self) -> KeyChange:
        """All of it, as it stands in the fields."""
        return KeyChange(
            name=self._named(),
            expires_at=self._expires_at(),
            rpm=_whole(self._rpm),
            tpm=_whole(self._tpm),
            concurrency=_whole(self._concurrency),
            budget_micros=parts.micros(self._budget),
            models=tuple(self._models.value or ()) or None,
            cache=CachePolicy(self._cache.value),
            seeds=SeedPolicy(self._seeds.value),
            compat=Compat(self._compat.value) if self._compat.value else None,
            history_tokens=_whole(self._history),
            collapses_whitespace=bool(self._whitespace.value),
        )

    def _expires_at(self) -> float | UnsetType | None:
        days = int(self._expires.value or 0)
        return UNSET if days == _AS_IT_IS else time.time() + days * _DAY_S if days else None

    def _named(self) -> str:
        name = (self.name.value or "").strip()
        if not name:
            raise ApiError(ErrorKind.INVALID_REQUEST, self._view.t("Please give the key a name."))
        return name


def limited(key: Key) -> bool:
    """Whether it has a limit of its own."""
    return any(value is not None for value in (key.rpm, key.tpm, key.concurrency, key.budget_micros))


def _number(label: str, value: float | None, mark: str, least: int = 1) -> ui.number:
    return ui.number(label, min=least, value=value).props(f"outlined dense clearable data-testid={mark}")


def _choice(label: str, options: dict[str, str], value: str, mark: str) -> ui.select:
    return ui.select(options, label=label, value=str(value)).props(f"outlined dense data-testid={mark}")


def _whole(field: ui.number) -> int | None:
    return None if field.value is None else int(field.value)
