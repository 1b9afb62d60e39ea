"""This is where ids of accounts and keys become the names that people gave them, asked of the box once for all open pages."""

from typing import NamedTuple

from qwenbox.client.shapes import Account, Key
from qwenbox.console.view import View


class Names(NamedTuple):
    """By id."""

    accounts: dict[str, Account]
    keys: dict[str, Key]

    def account(self, account_id: str) -> str:
        return self.accounts[account_id].name if account_id in self.accounts else account_id

    def key(self, key_id: str) -> str:
        return self.keys[key_id].name if key_id in self.keys else key_id


async def read(view: View, *, is_stale: bool = False) -> Names:
    """is_stale: what was told last lacks somebody; ask anew."""

    async def fetch() -> Names:
        accounts, keys = await view.admin.accounts(), await view.admin.keys()
        return Names({account.id: account for account in accounts}, {key.id: key for key in keys})

    told = view.house.polled("names", fetch, 10.0)
    if is_stale:
        told.forget()
    return await told.get()
