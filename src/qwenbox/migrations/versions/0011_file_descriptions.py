"""What owners say of their files, and the checksums of their bytes."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("description", sa.Text, nullable=False, server_default=""))
    op.add_column("files", sa.Column("md5", sa.Text, nullable=False, server_default=""))
