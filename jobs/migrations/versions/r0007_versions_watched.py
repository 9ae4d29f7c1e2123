"""Which version a job is of, in columns of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
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


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_jobs_version", "jobs")
    for name in _FIELDS:
        op.drop_column("jobs", name)
