"""PostgreSQL killed under a running stack: its first process, and one that serves a connection."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.chaos.processes import alive, until
from tests.chaos.rig import Rig
from tests.chaos.stage import Stage


@pytest.fixture
def rig(stage: Stage) -> Iterator[Rig]:
    with stage.rig(postgresql=True) as running:
        yield running


class TestKill:
    @pytest.mark.parametrize("point", ["segment", "committed"])
    def test_while_a_job_is(self, rig: Rig, point: str) -> None:
        with rig.held(point) as held:
            waiting = rig.client.submit(1)
            rig.note(f"kill -9 of PostgreSQL, a job {point}")
            rig.fleet.kill("postgresql")
            answer = rig.client.post()
            assert answer is not None
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        rig.revive("postgresql")
        assert {rig.client.finished(one)["state"] for one in (held.job_id, waiting)} == {"succeeded"}
        rig.settle()

    def test_of_every_process_that_serves_a_connection(self, rig: Rig) -> None:
        with rig.held("segment"):
            assert rig.postgres is not None
            postmaster = rig.fleet.parts["postgresql"]
            serving = [one for one in postmaster.children() if "127.0.0.1" in " ".join(one.cmdline())]
            assert serving
            rig.note("kill -9 of a process of PostgreSQL")
            os.kill(serving[0].pid, signal.SIGKILL)
            until(lambda: not _any_alive(serving), 10.0, "PostgreSQL has ended its other connections too")
            assert postmaster.running
            rig.postgres.wait()
        rig.settle()


def _any_alive(processes: list[psutil.Process]) -> bool:
    return any(alive(one) for one in processes)
