"""This is where a database is brought to the newest revision."""

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from qwenbox import db

# Any number will do, as long as nobody else on the server uses it: "qwen" in ASCII.
_LOCK = 0x7177656E


class NewerDatabase(Exception):
    """The database was brought further by a newer qwenbox; this one does not know what its rows mean."""


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Run every migration that this database has not seen, up to `revision`.

    Safe to run by several processes at once: on SQLite the transaction of `Database.change` is the only writer, on PostgreSQL it takes
    a lock that ends with it. Raises NewerDatabase.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = Config()
    config.set_main_option("script_location", str(files("qwenbox") / "migrations"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    found = db.revision(connection)
    if found is not None and found not in known:
        told = f"The database is of a newer qwenbox (revision {found}; this one knows up to {db.REVISION}). Please install that one again."
        raise NewerDatabase(told)
    command.upgrade(config, revision)
