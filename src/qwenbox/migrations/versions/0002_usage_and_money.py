"""Tiers, budgets and rights of accounts and keys; usage, ledger and purses."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table, columns in (
        (
            "accounts",
            (
                sa.Column("role", sa.Text, nullable=False, server_default="member"),
                sa.Column("tier", sa.Text, nullable=False, server_default=""),
                sa.Column("time_zone", sa.Text, nullable=False, server_default="UTC"),
                sa.Column("is_prepaid", sa.Boolean, nullable=False, server_default=sa.false()),
                sa.Column("budget_micros", sa.BigInteger),
                sa.Column("password_hash", sa.Text),
            ),
        ),
        (
            "keys",
            (
                sa.Column("models", sa.Text),
                sa.Column("expires_at", sa.Float),
                sa.Column("budget_micros", sa.BigInteger),
                sa.Column("rpm", sa.Integer),
                sa.Column("tpm", sa.Integer),
                sa.Column("concurrency", sa.Integer),
            ),
        ),
    ):
        for column in columns:
            op.add_column(table, column)
    op.create_table("settings", sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))
    op.create_table(
        "usage",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("dialect", sa.Text, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("day", sa.Text, nullable=False),
        sa.Column("arrived_at", sa.Float, nullable=False),
        sa.Column("admitted_at", sa.Float, nullable=False),
        sa.Column("ttft_s", sa.Float),
        sa.Column("duration_s", sa.Float, nullable=False),
        sa.Column("input_tokens", sa.Integer, nullable=False),
        sa.Column("cached_tokens", sa.Integer),
        sa.Column("output_tokens", sa.Integer, nullable=False),
        sa.Column("reasoning_tokens", sa.Integer),
        sa.Column("image_tokens", sa.Integer),
        sa.Column("is_counted", sa.Boolean, nullable=False),
        sa.Column("is_cache_hit", sa.Boolean, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("finish_reason", sa.Text),
        sa.Column("error_kind", sa.Text),
        sa.Column("cost_micros", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("price_version", sa.Text, nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
    )
    op.create_index("usage_by_account", "usage", ["account_id", "day"])
    op.create_index("usage_by_time", "usage", ["admitted_at"])
    op.create_table(
        "ledger_entries",
        sa.Column("transaction_id", sa.Text, primary_key=True),
        sa.Column("ledger_account", sa.Text, primary_key=True),
        sa.Column("amount_micros", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sqlite_with_rowid=False,  # one page less to write for every call
    )
    op.create_table(
        "purses",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("amount_micros", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
