"""Series that archives sent, DICOM objects that jobs made, and their deliveries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "dicom_objects",
        sa.Column("sop_instance_uid", sa.String(64), primary_key=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("series_uid", sa.String(64), nullable=False),
        sa.Column("sop_class_uid", sa.String(64), nullable=False),
        sa.Column("modality", sa.String(16), nullable=False),
        sa.Column("artefact", sa.String(32), nullable=False),
    )
    for column in ("job_id", "study_uid", "series_uid"):
        op.create_index(f"ix_dicom_objects_{column}", "dicom_objects", [column])
    op.create_table(
        "deliveries",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("destination", sa.String(64), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("due_at", sa.Float(53)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("finished_at", sa.Float(53)),
        sa.Column("error", sa.Text),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'withheld', 'failed')", name="ck_deliveries_state"),
    )
    op.create_index("ix_deliveries_due_at", "deliveries", ["due_at"])
    op.create_table(
        "series",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("sender", sa.String(64), nullable=False),
        sa.Column("study_uid", sa.String(64), nullable=False),
        sa.Column("series_uid", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("received_at", sa.Float(53), nullable=False),
        sa.Column("due_at", sa.Float(53)),
        sa.Column("route", sa.String(64)),
        sa.Column("job_id", sa.String(32)),
        sa.Column("detail", sa.Text),
        sa.CheckConstraint("state IN ('collecting', 'submitted', 'unrouted', 'refused')", name="ck_series_state"),
    )
    for column in ("received_at", "due_at", "job_id"):
        op.create_index(f"ix_series_{column}", "series", [column])


def downgrade() -> None:
    """Drop the tables."""
    for table in ("series", "deliveries", "dicom_objects"):
        op.drop_table(table)
