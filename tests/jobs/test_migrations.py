from __future__ import annotations

import json

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from jobs.database import upgrade, writing
from jobs.models import JobRequest
from jobs.repository import JobRepository


def before(engine: Engine, revision: str) -> None:
    """Take the database back to where this revision has not been reached."""
    config = Config()
    config.set_main_option("script_location", "jobs:migrations")
    parent = ScriptDirectory.from_config(config).get_revision(revision).down_revision
    with writing(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, str(parent))


class TestVersionsOfJobs:
    def test_jobs_that_were_there_before_get_theirs(
        self, engine: Engine, repository: JobRepository, wanted: JobRequest
    ) -> None:
        before(engine, "0007")
        with engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO jobs (id, state, created_at, queued_at, attempt, progress, stage, request) "
                    "VALUES ('old', 'queued', 1, 1, 0, 0, '', :request)"
                ),
                {"request": json.dumps(wanted.model_dump(mode="json"))},
            )
        upgrade(engine)
        job = repository.get("old")
        assert job is not None
        assert (job.model, job.version) == ("hippocampus", "1.0.0")
