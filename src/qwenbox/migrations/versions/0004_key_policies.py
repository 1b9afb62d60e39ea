"""Policies of keys: cache, thrift."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("cache", sa.Text, nullable=False, server_default="auto"),
        sa.Column("history_tokens", sa.Integer),
        sa.Column("collapses_whitespace", sa.Boolean, nullable=False, server_default=sa.false()),
    ):
        op.add_column("keys", column)
