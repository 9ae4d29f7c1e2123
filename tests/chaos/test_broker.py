"""Redis killed, with and without its memory, and the network to it that fails."""

from __future__ import annotations

import pytest

from tests.chaos.proxy import Network
from tests.chaos.rig import Rig


class TestKill:
    @pytest.mark.parametrize("wiped", [False, True], ids=["remembers", "forgets"])
    def test_while_a_job_runs_and_others_wait(self, rig: Rig, wiped: bool) -> None:
        with rig.held("segment") as held:
            for seed in range(4):
                rig.client.submit(seed)
            rig.note(f"kill -9 of Redis {'without' if wiped else 'with'} its memory")
            rig.redis.kill(wiped=wiped)
            away = rig.client.submit(1)
        rig.revive("redis")
        assert rig.client.finished(held.job_id)["attempt"] == 1
        assert rig.client.finished(away)["attempt"] == 1
        rig.settle()


class TestNetwork:
    @pytest.mark.parametrize("state", [Network.CUT, Network.HUNG, Network.SLOW])
    def test_between_workers_and_broker_is_back_after_a_while(self, rig: Rig, state: Network) -> None:
        with rig.held("segment") as held:
            rig.note(f"network to Redis {state}")
            for network in rig.networks:
                network.become(state)
            jobs = [rig.client.submit(seed) for seed in range(3)]
        assert rig.client.finished(held.job_id)["attempt"] == 1
        rig.heal()
        assert [rig.client.finished(one)["attempt"] for one in jobs] == [1, 1, 1]
        rig.settle()

    def test_that_forgets_its_connections_without_a_word(self, rig: Rig) -> None:
        rig.note("network to Redis forgets its connections")
        assert all(network.forget() for network in rig.networks)
        for seed in range(3):
            rig.client.submit(seed)
        rig.settle()

    def test_that_forgets_its_connections_while_every_worker_has_a_job(self, rig: Rig) -> None:
        """What cannot be settled then must not be the last that a worker gets."""
        rig.order("segment", twice=True)
        jobs = [rig.client.submit(seed) for seed in range(2)]
        rig.wait_held("segment", count=2)
        rig.note("network to Redis forgets its connections")
        assert all(network.forget() for network in rig.networks)
        rig.release("segment")
        jobs += [rig.client.submit(seed) for seed in range(2)]
        assert [rig.client.finished(one)["attempt"] for one in jobs] == [1] * 4
        rig.settle()
