"""Alembic migrations of the jobs tables; `jobs.database.upgrade` runs them."""
