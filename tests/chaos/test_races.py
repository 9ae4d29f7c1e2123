"""Messages that come more than once, and workers that want the same job."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from tests.chaos.processes import until
from tests.chaos.proxy import Network
from tests.chaos.rig import LEASE_S, Layout, Rig


def unheard(rig: Rig, jobs: int) -> list[str]:
    """Jobs whose messages lie in Redis, as no worker can reach it."""
    for network in rig.networks:
        network.become(Network.CUT)
    return [rig.client.submit(number % 4) for number in range(jobs)]


class TestDuplicates:
    def test_of_every_message(self, rig: Rig) -> None:
        jobs = unheard(rig, 5)
        rig.note("every message twice more")
        assert rig.redis.duplicate(2) >= 15
        rig.heal()
        assert [rig.client.finished(one)["attempt"] for one in jobs] == [1] * 5
        rig.settle()

    def test_two_workers_that_want_one_job_at_the_same_time(self, rig: Rig) -> None:
        (job_id,) = unheard(rig, 1)
        rig.note("two workers race for one job")
        assert rig.redis.duplicate() >= 2
        rig.order("delivered", twice=True)
        for network in rig.networks:
            network.become(Network.FINE)
        first, second = rig.wait_held("delivered", count=2)
        assert rig.owner_of(first) != rig.owner_of(second)
        rig.release("delivered")
        assert rig.client.finished(job_id)["attempt"] == 1
        rig.settle()

    def test_a_message_that_comes_again_while_its_job_runs(
        self, start: Callable[..., AbstractContextManager[Rig]]
    ) -> None:
        with start(Layout(workers=2, settings={"CHAOS_VISIBILITY_S": "2"})) as rig:
            with rig.held("segment") as held:
                rig.note("message delivered again while its job runs")
                rig.order("delivered")
                (other,) = rig.wait_held("delivered")
                assert rig.owner_of(other) != rig.owner_of(held.pid)
                rig.release("delivered")
                time.sleep(LEASE_S)
                assert rig.client.job(held.job_id)["attempt"] == 1
            rig.settle()


class TestSilence:
    def test_of_a_worker_beyond_its_lease_that_then_goes_on(self, rig: Rig) -> None:
        with rig.held("segment") as held:
            name = rig.owner_of(held.pid)
            rig.note("worker stopped beyond its lease")
            rig.fleet.parts[name].signal(signal.SIGSTOP)
            until(lambda: rig.client.job(held.job_id)["attempt"] == 2, 30.0, "another worker takes over")
            rig.fleet.parts[name].signal(signal.SIGCONT)
        assert rig.client.finished(held.job_id)["attempt"] == 2
        rig.settle()

    def test_of_a_worker_that_has_a_result_in_its_hands(self, rig: Rig) -> None:
        with rig.held("committed") as held:
            name = rig.owner_of(held.pid)
            rig.note("worker stopped beyond its lease")
            rig.fleet.parts[name].signal(signal.SIGSTOP)
            until(lambda: rig.ledger.states()[held.job_id] == "succeeded", 30.0, "another worker does the job")
            rig.fleet.parts[name].signal(signal.SIGCONT)
        assert rig.client.finished(held.job_id)["attempt"] == 2
        rig.settle()
