"""Asynchronous tasks, and what they and other calls made that can be fetched for a while."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("submitted_at", sa.Float, nullable=False),
        sa.Column("scheduled_at", sa.Float),
        sa.Column("ended_at", sa.Float),
        sa.Column("total", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("pictures", sa.Text, nullable=False),
        sa.Column("fault", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("lease_until", sa.Float, nullable=False),
    )
    op.create_index("tasks_by_account", "tasks", ["account_id", "submitted_at"])
    op.create_index("tasks_by_state", "tasks", ["state", "submitted_at"])
    op.create_table(
        "kept_results",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("kept_results_by_end", "kept_results", ["expires_at"])
