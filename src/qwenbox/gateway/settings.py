"""This is where a box keeps what all its processes must agree on: its secret, the test clock's offset."""

from sqlalchemy import BigInteger, Column, Table, Text, cast, insert, select, update
from sqlalchemy.exc import IntegrityError

from qwenbox.db import METADATA, Database
from qwenbox.terms.errors import ApiError

SETTINGS = Table("settings", METADATA, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))


class Settings:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> str | None:
        rows = await self._database.read(select(SETTINGS.c.value).where(SETTINGS.c.name == name))
        return str(rows[0]["value"]) if rows else None

    async def once(self, name: str, value: str) -> str:
        """The value of `name`, which is `value` unless somebody was first. Raises ApiError(OVERLOADED) without a database."""
        if (found := await self.get(name)) is not None:
            return found
        try:
            await self._database.write(insert(SETTINGS).values(name=name, value=value))
        except ApiError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
        # Read, not assumed: another process may have written its own in the same moment.
        return await self.get(name) or value

    async def put(self, name: str, value: str) -> None:
        """From now on `name` is `value`."""
        await self.once(name, value)
        await self._database.write(update(SETTINGS).where(SETTINGS.c.name == name).values(value=value))

    async def beginning(self, prefix: str) -> dict[str, str]:
        """Every value whose name begins so."""
        rows = await self._database.read(select(SETTINGS).where(SETTINGS.c.name.startswith(prefix, autoescape=True)))
        return {str(row["name"]): str(row["value"]) for row in rows}

    async def add(self, name: str, amount: int) -> int:
        """Add to a whole number, 0 at first; in one statement, so that nothing is lost between processes. Returns a sum that holds it."""
        await self.once(name, "0")
        total = cast(cast(SETTINGS.c.value, BigInteger) + amount, Text)
        await self._database.write(update(SETTINGS).where(SETTINGS.c.name == name).values(value=total))
        return int(await self.get(name) or 0)
