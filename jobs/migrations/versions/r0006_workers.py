"""The workers; totals by error code, version and priority."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UNKNOWN = "unknown"
"""What a total that was counted without a label has in its place."""

_Change = Callable[[list[str]], list[str]]
_WIDER: Mapping[str, _Change] = {
    "jobs_total": lambda labels: [*labels, UNKNOWN if labels == ["failed"] else ""],
    "verdicts_total": lambda labels: [labels[0], UNKNOWN, labels[1]],
    "nqm": lambda labels: [*labels, UNKNOWN],
    "predicted_dice": lambda labels: [*labels, UNKNOWN],
    "queue_wait_seconds": lambda labels: [*labels, UNKNOWN],
}
_NARROWER: Mapping[str, _Change] = {
    "jobs_total": lambda labels: labels[:1],
    "verdicts_total": lambda labels: [labels[0], labels[2]],
    "nqm": lambda labels: labels[:1],
    "predicted_dice": lambda labels: labels[:1],
    "queue_wait_seconds": lambda labels: [],
}
_TALLIES = sa.table("job_tallies", *(sa.column(name) for name in ("name", "labels", "bucket", "value")))


def upgrade() -> None:
    """Create the table, and give old totals their new labels."""
    op.create_table(
        "workers",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("asked_at", sa.Float(53)),
        sa.Column("seen_at", sa.Float(53)),
    )
    _relabel(_WIDER)


def downgrade() -> None:
    """Drop the table, and add up what differs in the new labels alone."""
    _relabel(_NARROWER)
    op.execute(_TALLIES.delete().where(_TALLIES.c.name.in_(["attempts_total", "retries_total", "flag_reasons_total"])))
    op.drop_table("workers")


def _relabel(changes: Mapping[str, _Change]) -> None:
    ours = _TALLIES.c.name.in_(list(changes))
    connection, sums = op.get_bind(), defaultdict[tuple[str, str, str], float](float)
    for name, labels, bucket, value in connection.execute(sa.select(*_TALLIES.c).where(ours)):
        sums[name, json.dumps(changes[name](json.loads(labels))), bucket] += value
    connection.execute(_TALLIES.delete().where(ours))
    rows = [dict(zip(("name", "labels", "bucket", "value"), (*key, value), strict=True)) for key, value in sums.items()]
    if rows:
        connection.execute(_TALLIES.insert(), rows)
