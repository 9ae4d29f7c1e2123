"""Alembic's entry point: migrates inside the transaction that `jobs.database` opened."""

from __future__ import annotations

from alembic import context

from jobs.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,  # true of PostgreSQL, and of SQLite as we open it
)
with context.begin_transaction():
    context.run_migrations()
