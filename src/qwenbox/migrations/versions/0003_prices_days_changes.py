"""Prices as they were, daily sums of usage, and what changed of accounts and keys since somebody looked."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_DAY = ("day", "account_id", "key_id", "model", "deployment", "dialect", "lane", "outcome", "currency")
_SUMS = (
    "calls",
    "cache_hits",
    "input_tokens",
    "cached_tokens",
    "cacheable_tokens",
    "output_tokens",
    "reasoning_tokens",
    "image_tokens",
    "cost_micros",
    "duration_micros",
    "ttft_micros",
    "ttft_calls",
)


def upgrade() -> None:
    op.create_table("price_versions", sa.Column("id", sa.Text, primary_key=True), sa.Column("row", sa.Text, nullable=False))
    op.create_table(
        "usage_days",
        *(sa.Column(name, sa.Text, primary_key=True) for name in _DAY),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _SUMS),
    )
    changes = op.create_table("changes", sa.Column("name", sa.Text, primary_key=True), sa.Column("number", sa.BigInteger, nullable=False))
    op.bulk_insert(changes, [{"name": "access", "number": 0}])
    for table in ("accounts", "keys"):
        op.add_column(table, sa.Column("change", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("ledger_by_time", "ledger_entries", ["at"])
    where = sa.text("kind <> 'call'")
    op.create_index("ledger_by_account", "ledger_entries", ["ledger_account", "at"], sqlite_where=where, postgresql_where=where)
    op.create_index("keys_by_change", "keys", ["change"])
    op.create_index("keys_by_account", "keys", ["account_id"])
