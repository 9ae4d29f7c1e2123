"""The kinds of fault that random schedules are made of. Each is begun, lasts a while, and is ended."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from tests.chaos.disk import fill, free
from tests.chaos.points import GATEWAY_POINTS, WORKER_POINTS
from tests.chaos.processes import until
from tests.chaos.proxy import Network
from tests.chaos.rig import LEASE_S, SEEDS, Rig

End = Callable[[], None]
Begin = Callable[[Rig, random.Random], End | None]
"""Makes the fault and says how it is ended; None where it cannot be made as things stand."""
CLOCK_MAX_S = 7200.0
CANCELLED = 2
START_S = 5.0
"""How long a worker takes to have a process for jobs, at most."""


@dataclass(frozen=True)
class Kind:
    """How a fault is made, between which times it lasts (seconds), and whether only while no other one does."""

    begin: Begin
    lasts: tuple[float, float] = (0.1, 1.0)
    alone: bool = False


def _nothing() -> None:
    """What needs no end."""


def _up(rig: Rig, prefix: str, chance: random.Random) -> str | None:
    names = [part.name for part in rig.fleet.up(prefix)]
    return chance.choice(names) if names else None


def _kill(prefix: str, kind: str) -> Begin:
    def begin(rig: Rig, chance: random.Random) -> End | None:
        name = _up(rig, prefix, chance)
        if name is None:
            return None
        rig.note(kind)
        rig.fleet.kill(name)
        return lambda: rig.revive(name)

    return begin


def _kill_pool(rig: Rig, chance: random.Random) -> End | None:
    workers = rig.fleet.up("worker")
    if workers:  # those that have just been started have none yet; one that stands still may get none
        with suppress(TimeoutError):
            until(lambda: any(part.pool() for part in workers), START_S, "a worker has a process for jobs")
    names = [part.name for part in workers if part.pool() is not None]
    if not names:
        return None
    rig.note("kill -9 of a worker's process")
    rig.fleet.kill_pool(chance.choice(names))
    return _nothing


def _kill_redis(*, wiped: bool) -> Begin:
    def begin(rig: Rig, chance: random.Random) -> End | None:
        if _up(rig, "redis", chance) is None:
            return None
        rig.note(f"kill -9 of Redis {'without' if wiped else 'with'} its memory")
        rig.redis.kill(wiped=wiped)
        return lambda: rig.revive("redis")

    return begin


def _kill_at_point(rig: Rig, chance: random.Random) -> End | None:
    """Kill whoever comes to a point of the way through a job; a job is sent there."""
    point = chance.choice((*WORKER_POINTS, *GATEWAY_POINTS))
    rig.order(point)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(rig.client.try_submit, chance.randrange(SEEDS))
        name = rig.owner_of(rig.wait_held(point)[0])
        rig.note(f"kill -9 at {point}")
        gateway = point in GATEWAY_POINTS
        (rig.fleet.kill if gateway else rig.fleet.kill_pool)(name)
        rig.release(point)
    return (lambda: rig.revive(name)) if gateway else _nothing


def _network(state: Network) -> Begin:
    def begin(rig: Rig, chance: random.Random) -> End | None:
        network = chance.choice(rig.networks)
        rig.note(f"network between a worker and Redis {state}")
        network.become(state)
        return lambda: network.become(Network.FINE)

    return begin


def _forget_network(rig: Rig, chance: random.Random) -> End | None:
    rig.note("network between a worker and Redis forgets its connections")
    chance.choice(rig.networks).forget()
    return _nothing


def _duplicate(rig: Rig, chance: random.Random) -> End | None:
    """Every message that waits, twice or three times; workers are kept from it meanwhile, so that one waits."""
    for network in rig.networks:
        network.become(Network.CUT)
    rig.client.submit(chance.randrange(SEEDS))
    rig.note("every message again")
    assert rig.redis.duplicate(chance.choice((1, 2)))
    for network in rig.networks:
        network.become(Network.FINE)
    return _nothing


def _freeze(prefix: str, kind: str) -> Begin:
    def begin(rig: Rig, chance: random.Random) -> End | None:
        name = _up(rig, prefix, chance)
        if name is None:
            return None
        rig.note(kind)
        rig.fleet.parts[name].signal(signal.SIGSTOP)
        return lambda: rig.fleet.parts[name].signal(signal.SIGCONT)

    return begin


def _cancel(rig: Rig, chance: random.Random) -> End | None:
    """Jobs that may be waiting, running or over."""
    known = list(rig.client.accepted)
    rig.note("jobs cancelled")
    for job_id in chance.sample(known, min(CANCELLED, len(known))):
        rig.client.cancel(job_id)
    return _nothing


def _turn_clocks(rig: Rig, chance: random.Random) -> End | None:
    rig.note("clocks jump, and jump back")
    rig.turn_clocks(chance.uniform(-CLOCK_MAX_S, CLOCK_MAX_S))
    return lambda: rig.turn_clocks(0.0)


def _fill_disk(rig: Rig, chance: random.Random) -> End | None:
    rig.note("disk full")
    fill(rig.data)
    return lambda: free(rig.data)


LONGER_THAN_A_LEASE = (LEASE_S + 0.2, LEASE_S + 1.5)
KINDS: Mapping[str, Kind] = {
    "worker": Kind(_kill("worker", "kill -9 of a worker")),
    "pool": Kind(_kill_pool),
    "point": Kind(_kill_at_point, alone=True),
    "gateway": Kind(_kill("gateway", "kill -9 of a gateway")),
    "redis": Kind(_kill_redis(wiped=False)),
    "wiped": Kind(_kill_redis(wiped=True)),
    "cut": Kind(_network(Network.CUT)),
    "hung": Kind(_network(Network.HUNG)),
    "slow": Kind(_network(Network.SLOW)),
    "forgets": Kind(_forget_network),
    "duplicates": Kind(_duplicate, alone=True),
    "silence": Kind(_freeze("worker", "worker stopped beyond its lease"), LONGER_THAN_A_LEASE),
    "pause": Kind(_freeze("gateway", "gateway stopped")),
    "still": Kind(_freeze("redis", "Redis stopped")),
    "cancel": Kind(_cancel),
    "clock": Kind(_turn_clocks),
    "disk": Kind(_fill_disk),
    "postgresql": Kind(_kill("postgresql", "kill -9 of PostgreSQL")),
}
"""By the names that schedules use; the last one is for a stack on PostgreSQL alone."""
EVERYWHERE = tuple(name for name in KINDS if name != "postgresql")
