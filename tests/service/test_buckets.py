"""Token buckets, by a clock of the test's own."""

from __future__ import annotations

from service.admission import BURST_S, CLIENTS_MAX, Buckets
from tests.service.provider import Clock


class TestBuckets:
    def test_a_client_has_a_burst_and_then_its_rate(self) -> None:
        clock = Clock()
        buckets = Buckets(10.0, clock=clock)
        assert [buckets.take("ward") for _ in range(30)].count(True) == 10 * BURST_S
        for _ in range(20):
            clock.now += 0.1
            assert [buckets.take("ward"), buckets.take("ward")] == [True, False]

    def test_one_clients_is_not_anothers(self) -> None:
        buckets = Buckets(1.0, clock=Clock())
        while buckets.take("ward"):
            pass
        assert buckets.take("other")

    def test_a_rate_below_one_lets_one_through(self) -> None:
        clock = Clock()
        buckets = Buckets(0.1, clock=clock)
        assert [buckets.take("ward"), buckets.take("ward")] == [True, False]
        clock.now += 9.0
        assert not buckets.take("ward")
        clock.now += 1.1
        assert buckets.take("ward")

    def test_being_refused_costs_nothing(self) -> None:
        clock = Clock()
        buckets = Buckets(1.0, clock=clock)
        for _ in range(1000):
            buckets.take("ward")
        clock.now += 1.01
        assert buckets.take("ward")

    def test_memory_is_bounded_and_a_busy_client_is_not_forgotten(self) -> None:
        buckets = Buckets(1.0, clock=Clock())
        while buckets.take("busy"):
            pass
        for number in range(3 * CLIENTS_MAX):
            buckets.take(f"client {number}")
            assert not buckets.take("busy")
        assert len(buckets._levels) <= CLIENTS_MAX + 1
