"""Prompts and answers that were recorded, and when a call came to each hop of its way."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage", sa.Column("hops", sa.Text, nullable=False, server_default=""))
    op.create_table(
        "recordings",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("is_cut", sa.Boolean, nullable=False),
    )
    op.create_index("recordings_by_time", "recordings", ["at"])
