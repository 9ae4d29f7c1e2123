"""Which request made a job, and in which trace."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.add_column("jobs", sa.Column("request_id", sa.String(36)))
    op.add_column("jobs", sa.Column("trace", sa.String(64)))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("jobs", "trace")
    op.drop_column("jobs", "request_id")
