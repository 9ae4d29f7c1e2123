"""What people say of masks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ORPHANED = "NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = OLD.job_id)"


def upgrade() -> None:
    """Create the table, and what keeps a review as it was written for as long as its job is there."""
    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("credential", sa.String(96), nullable=False),
        sa.Column("reviewer", sa.String(64), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgresql()
        return
    refuse = "BEGIN SELECT RAISE(ABORT, 'reviews only grow'); END"
    op.execute(f"CREATE TRIGGER reviews_no_update BEFORE UPDATE ON reviews {refuse}")
    op.execute(  # a job that is erased takes its reviews along: then it is gone before they are
        f"CREATE TRIGGER reviews_no_delete BEFORE DELETE ON reviews WHEN NOT ({_ORPHANED}) {refuse}"
    )
    op.execute(  # REPLACE deletes rows, and no trigger on DELETE hears of it
        "CREATE TRIGGER reviews_no_replace BEFORE INSERT ON reviews "  # noqa: S608  # no value of anybody's
        f"WHEN EXISTS (SELECT 1 FROM reviews WHERE id = NEW.id) {refuse}"
    )


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION ncagate_reviews_only_grow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF TG_OP = 'DELETE' AND {_ORPHANED} THEN RETURN OLD; END IF; "
        "RAISE EXCEPTION 'reviews only grow'; END $$"
    )
    op.execute(
        "CREATE TRIGGER reviews_only_grow BEFORE UPDATE OR DELETE ON reviews "
        "FOR EACH ROW EXECUTE FUNCTION ncagate_reviews_only_grow()"
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("reviews")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION ncagate_reviews_only_grow()")
