"""A worker killed, cut off and stopped while it tries a candidate: no job hears of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.points import SHADOW
from tests.chaos.proxy import Network
from tests.chaos.rig import Rig
from tests.chaos.stage import Stage


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Rig]:
    with stage.rig(postgresql=request.param == "postgresql") as running:
        yield running


class TestShadow:
    def test_killed_leaves_its_job_as_it_was(self, either: Rig) -> None:
        rig = either
        with rig.held(SHADOW) as held:
            rig.note("kill -9 of a worker's process at a shadow run")
            before = rig.client.finished(held.job_id)
            rig.fleet.kill_pool(rig.owner_of(held.pid))
        assert (before["state"], before["attempt"]) == ("succeeded", 1)
        assert rig.client.finished(held.job_id) == before
        rig.settle()

    def test_without_a_broker_ends_and_jobs_go_on(self, rig: Rig) -> None:
        with rig.held(SHADOW) as held:
            rig.note("network cut at a shadow run")
            name = rig.owner_of(held.pid)
            network = rig.networks[int(name.partition("-")[2])]
            network.become(Network.CUT)
        network.become(Network.FINE)
        assert rig.client.finished(held.job_id)["attempt"] == 1
        rig.settle()
