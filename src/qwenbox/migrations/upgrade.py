"""This is where a database is brought to the newest revision."""

from importlib.resources import files

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade(connection: Connection) -> None:
    """Run every migration that this database has not seen. Safe to run by several processes in turn."""
    config = Config()
    config.set_main_option("script_location", str(files("qwenbox") / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
