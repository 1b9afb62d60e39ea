"""This is where the live windows are shown over HTTP: what is used right now of the limits."""

from collections.abc import Mapping

import msgspec

from qwenbox.client.shapes import Nothing, Page, TierLimits, WindowState
from qwenbox.gateway.accounts import Account
from qwenbox.gateway.counters.base import LiveWindow
from qwenbox.gateway.keys import Key
from qwenbox.gateway.limits import Tiers
from qwenbox.server.admin.operation import Asked, Operation, operation
from qwenbox.server.admin.parts import AdminParts, live
from qwenbox.terms.limits import Limits


async def windows(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Page[WindowState]:
    """What every limited account or key uses of a model in the current window, what it may use, and when some of it is free again.

    Only a running box can tell. With several workers and no shared store, each has its part of every limit and tells of its own.
    """
    found = await live(parts).windows()
    if not found:
        return Page(items=())
    accounts = {account.id: account for account in await parts.accounts.every()}
    keys = {key.id: key for key in await parts.keys.every()}
    told = tuple(_shown(window, live(parts).tiers, accounts, keys) for window in found)
    machine = live(parts).machine
    return Page(items=told if machine.valkey() != "off" else tuple(_part(window, machine.about.workers) for window in told))


async def tiers(parts: AdminParts, asked: Asked[Nothing, Nothing]) -> Page[TierLimits]:
    """The tiers that an account can be in, as the settings have them, by name. Only a running box can tell."""
    known = live(parts).tiers
    return Page(
        items=tuple(
            TierLimits(
                name=name,
                is_default=name == known.default_name,
                weight=tier.weight,
                rpm=tier.rpm,
                tpm=tier.tpm,
                concurrency=tier.concurrency,
            )
            for name, tier in sorted(known.named.items())
        )
    )


def _part(window: WindowState, workers: int) -> WindowState:
    """What one of so many workers may let in."""

    def part(whole: int | None) -> int | None:
        return None if whole is None else max(1, whole // workers)

    return msgspec.structs.replace(
        window,
        requests_limit=part(window.requests_limit),
        tokens_limit=part(window.tokens_limit),
        concurrency_limit=part(window.concurrency_limit),
    )


def _shown(window: LiveWindow, tiers: Tiers, accounts: Mapping[str, Account], keys: Mapping[str, Key]) -> WindowState:
    owner_id, _, model = window.id.partition("/")
    key = keys.get(owner_id)
    account = accounts.get(key.account_id if key else owner_id)
    limits = Limits()
    if key is not None:
        limits = key.limits
    elif account is not None:
        limits = tiers.limits(account.tier, model)
    return WindowState(
        owner_id=owner_id,
        model=model,
        requests=window.requests,
        tokens=window.tokens,
        open_calls=window.open,
        account=account.name if account else "",
        key=key.name if key else "",
        window_s=tiers.window_s,
        requests_limit=limits.rpm,
        tokens_limit=limits.tpm,
        concurrency_limit=limits.concurrency,
        frees_in_s=window.frees_in_s,
        empty_in_s=window.empty_in_s,
    )


OPERATIONS: tuple[Operation, ...] = (operation("GET /limits", windows), operation("GET /limits/tiers", tiers))
