"""Which version a job is of, in columns of their own; what candidates make of jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_FIELDS = ("model", "version")


def upgrade() -> None:
    """Add the columns, filled from the requests."""
    for name in _FIELDS:
        op.add_column("jobs", sa.Column(name, sa.String(64), nullable=False, server_default=""))
    postgresql = op.get_bind().dialect.name == "postgresql"
    model, version = (
        f"request ->> '{name}'" if postgresql else f"json_extract(request, '$.{name}')" for name in _FIELDS
    )
    op.execute(f"UPDATE jobs SET model = {model}, version = {version}")  # noqa: S608  # no value of anybody's
    op.create_index("ix_jobs_version", "jobs", ["model", "version", "state", "finished_at"])
    op.create_table(
        "shadows",
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("candidate", sa.String(64), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("outcome", sa.String(64), nullable=False),
        sa.Column("dice", sa.Float(53)),
        sa.Column("nqm", sa.Float(53)),
        sa.Column("predicted_dice", sa.Float(53)),
        sa.Column("verdict_changed", sa.Boolean),
        sa.Column("seconds", sa.Float(53)),
        sa.Column("candidate_seconds", sa.Float(53)),
    )
    op.create_index("ix_shadows_versions", "shadows", ["model", "candidate", "version", "started_at"])


def downgrade() -> None:
    """Drop them."""
    op.drop_table("shadows")
    op.drop_index("ix_jobs_version", "jobs")
    for name in _FIELDS:
        op.drop_column("jobs", name)
