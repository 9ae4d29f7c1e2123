"""Whose a job is and how urgent; clients take turns, and the broker's messages name no job any more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what was there before came from the local client."""
    op.add_column("jobs", sa.Column("client", sa.String(64), nullable=False, server_default="local"))
    op.add_column("jobs", sa.Column("priority", sa.Integer, nullable=False, server_default="0"))
    op.drop_column("jobs", "enqueued_at")
    op.drop_index("ix_jobs_state_created_at", "jobs")
    op.create_index("ix_jobs_turn", "jobs", ["state", "priority", "client", "created_at", "id"])
    op.create_index("ix_jobs_client_created_at", "jobs", ["client", "created_at", "id"])
    op.create_table(
        "clients",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("served_at", sa.Float(53)),
    )


def downgrade() -> None:
    """Drop them; every queued job is in the outbox again."""
    op.drop_table("clients")
    op.drop_index("ix_jobs_client_created_at", "jobs")
    op.drop_index("ix_jobs_turn", "jobs")
    op.create_index("ix_jobs_state_created_at", "jobs", ["state", "created_at"])
    op.add_column("jobs", sa.Column("enqueued_at", sa.Float(53)))
    op.drop_column("jobs", "priority")
    op.drop_column("jobs", "client")
