"""A worker's row, whatever the database does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from jobs.database import open_database, upgrade
from jobs.workers import WorkerRepository
from worker.presence import Presence


class TestPresence:
    def test_a_worker_that_begins_before_the_tables_are_there_is_known_once_they_are(self, tmp_path: Path) -> None:
        engine = open_database(f"sqlite:///{tmp_path / 'jobs.db'}")
        workers = WorkerRepository(engine)
        Presence(workers, "one", every_s=1.0).announce()
        time.sleep(0.1)
        upgrade(engine)
        deadline = time.monotonic() + 20.0
        while list(workers.silences()) != ["one"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        Presence(workers, "one", every_s=1.0).sign_off()
        assert workers.silences() == {}
        engine.dispose()

    def test_no_job_is_stopped_by_a_database_that_is_away(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        engine = open_database(f"sqlite:///{tmp_path / 'jobs.db'}")
        presence = Presence(WorkerRepository(engine), "one", every_s=60.0)
        for call in (presence.show, presence.show, presence.sign_off):
            call()
        assert caplog.text.count("a canary was not answered") == 1  # at most once in 60 s
        assert "look as if it were silent" in caplog.text
        engine.dispose()
