"""Trainings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "trainings",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("queued_at", sa.Float(53), nullable=False),
        sa.Column("started_at", sa.Float(53)),
        sa.Column("finished_at", sa.Float(53)),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("lease_until", sa.Float(53)),
        sa.Column("cancel_requested", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("progress", sa.Float(53), nullable=False),
        sa.Column("stage", sa.String(32), nullable=False),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_detail", sa.Text),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("iteration", sa.Integer, nullable=False),
        sa.Column("iterations", sa.Integer, nullable=False),
        sa.Column("loss", sa.Float(53)),
        sa.Column("dice", sa.Float(53)),
        sa.Column("validation_dice", sa.Float(53)),
        sa.Column("eta_s", sa.Float(53)),
        sa.Column("model", sa.String(64)),
        sa.Column("version", sa.String(64)),
    )
    op.create_index("ix_trainings_state", "trainings", ["state", "created_at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("trainings")
