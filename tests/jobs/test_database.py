from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine, inspect, text

from jobs.database import open_database, upgrade
from jobs.migrations import newest
from jobs.models import Base, JobRequest
from jobs.repository import JobRepository


class TestUpgrade:
    def test_creates_the_tables(self, engine: Engine) -> None:
        assert set(inspect(engine).get_table_names()) == {
            *Base.metadata.tables,
            "alembic_version",
        }

    def test_the_migrations_and_the_models_agree(self, engine: Engine) -> None:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []

    def test_goes_to_the_newest_revision(self, engine: Engine) -> None:
        config = Config()
        config.set_main_option("script_location", "jobs:migrations")
        assert newest() == ScriptDirectory.from_config(config).get_current_head()
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT version_num FROM alembic_version")) == newest()

    def test_a_database_of_a_later_release_is_refused(self, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(CommandError):
            upgrade(engine)

    def test_a_second_upgrade_keeps_the_rows(
        self, engine: Engine, repository: JobRepository, wanted: JobRequest
    ) -> None:
        repository.create("0" * 32, wanted)
        upgrade(engine)
        assert repository.get("0" * 32) is not None

    def test_processes_that_start_together_do_not_collide(self, database_url: str) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(upgrade, [database_url] * 4))
        engine = open_database(database_url)
        assert inspect(engine).has_table("jobs")
        engine.dispose()


class TestSqlite:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Engine:
        return open_database(f"sqlite:///{tmp_path / 'jobs.db'}")

    @pytest.mark.parametrize(
        ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 10000)]
    )
    def test_is_durable_and_patient(self, file: Engine, pragma: str, value: object) -> None:
        with file.connect() as connection:
            assert connection.execute(text(f"PRAGMA {pragma}")).scalar() == value
        file.dispose()


class TestTotals:
    """Revision 0006 gave the totals more labels."""

    OLD = (
        ("jobs_total", '["succeeded"]', "", 7.0),
        ("jobs_total", '["failed"]', "", 2.0),
        ("verdicts_total", '["tiny", "flag"]', "", 3.0),
        ("nqm", '["tiny"]', "0.05", 4.0),
        ("nqm", '["tiny"]', "sum", 0.2),
        ("queue_wait_seconds", "[]", "+Inf", 5.0),
        ("stage_duration_seconds", '["read"]', "0.1", 6.0),
        ("last_success_timestamp_seconds", "[]", "", 1.5e9),
    )

    @staticmethod
    def migrate(engine: Engine, step: Callable[[Config, str], None], revision: str) -> None:
        config = Config()
        config.set_main_option("script_location", "jobs:migrations")
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            step(config, revision)

    @staticmethod
    def rows(engine: Engine) -> list[tuple[object, ...]]:
        with engine.connect() as connection:
            return sorted(tuple(row) for row in connection.execute(text("SELECT * FROM job_tallies")))

    @pytest.fixture
    def old(self, engine: Engine) -> Engine:
        """A database of the revision before, in use."""
        self.migrate(engine, command.downgrade, "0005")
        with engine.begin() as connection:
            for row in self.OLD:
                values = dict(zip("abcd", row, strict=True))
                connection.execute(text("INSERT INTO job_tallies VALUES (:a, :b, :c, :d)"), values)
        return engine

    def test_old_ones_live_on_with_their_new_labels(self, old: Engine) -> None:
        upgrade(old)
        totals = JobRepository(old).totals()
        assert totals.counters["jobs_total"] == {("succeeded", ""): 7.0, ("failed", "unknown"): 2.0}
        assert totals.counters["verdicts_total"] == {("tiny", "unknown", "flag"): 3.0}
        assert totals.histograms["nqm"][("tiny", "unknown")].total == 0.2
        assert totals.histograms["queue_wait_seconds"][("unknown",)].buckets[-1] == ("+Inf", 5.0)
        assert totals.histograms["stage_duration_seconds"][("read",)].buckets[-1] == ("+Inf", 6.0)
        assert totals.counters["last_success_timestamp_seconds"] == {(): 1.5e9}

    def test_going_back_adds_up_what_was_told_apart(self, old: Engine) -> None:
        before = self.rows(old)
        upgrade(old)
        with old.begin() as connection:
            for code in ("gzip_truncated", "empty_file"):
                row = {"labels": f'["failed", "{code}"]'}
                connection.execute(text("INSERT INTO job_tallies VALUES ('jobs_total', :labels, '', 1)"), row)
            connection.execute(text("INSERT INTO job_tallies VALUES ('attempts_total', '[]', '', 9)"))
        self.migrate(old, command.downgrade, "0005")
        failed = ("jobs_total", '["failed"]', "", 2.0)
        assert self.rows(old) == sorted({*before} - {failed} | {(*failed[:3], 4.0)})
