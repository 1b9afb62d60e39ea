"""How much of prompts could have been reused."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage", sa.Column("reusable_tokens", sa.Integer))
    op.add_column("usage_days", sa.Column("reusable_tokens", sa.BigInteger, nullable=False, server_default="0"))
