from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
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
