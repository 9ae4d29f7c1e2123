"""The processes of a stack: started by their own commands, killed by their ids, their deaths accounted for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
DEATH_S = 15.0
"""A killed process, and what dies with it, is gone by then."""
POLL_S = 0.02
LOST = "Could not start worker processes"
LOST_WITHIN = 500
"""What Celery says as its last word then."""


def until(done: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait; raises TimeoutError with these words."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(POLL_S)


class Part:
    """One process. It is killed with the one that started it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [*_prefix(user), *command]
        self._environment = os.environ | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that runs, or ran."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def pid(self) -> int:
        """Its identifier."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it lives; a stopped process does."""
        return self._process is not None and self._process.poll() is None

    @property
    def lost_its_start(self) -> bool:
        """Whether it ended as Celery does where the process for jobs has died before the worker was ready."""
        return self.process.returncode != 0 and LOST in self.log.read_text(errors="replace")[-LOST_WITHIN:]

    def start(self) -> None:
        """Start it, once more where it has died."""
        assert not self.running, f"{self.name} runs"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                cwd=ROOT,
                process_group=0,
            )

    def kill(self) -> None:
        """Kill it with SIGKILL; that is what it has died of."""
        os.kill(self.pid, signal.SIGKILL)
        assert self.process.wait(DEATH_S) == -signal.SIGKILL, f"{self.name} died of {self.process.returncode}"

    def end(self, number: int = signal.SIGTERM, *, patience_s: float = 10.0) -> None:
        """Stop it politely if it runs, and less so if that does not help."""
        if not self.running:
            return
        self.signal(signal.SIGCONT)
        self.signal(number)
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def signal(self, number: int) -> None:
        """Send a signal to it and its children, where it lives."""
        if self.running:
            for one in [*self.children(), psutil.Process(self.pid)]:
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(number)

    def children(self) -> list[psutil.Process]:
        """All that it has started."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children(recursive=True)
        return []

    def pool(self) -> psutil.Process | None:
        """Of a worker: the process that runs jobs; None while there is none."""
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.pid).children():
                if alive(one):
                    return one
        return None


def alive(process: psutil.Process) -> bool:
    """Whether it is that process that runs, not another one of the same number, nor its remains."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


class Fleet:
    """All the processes, by name; knows which ones are down on purpose."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}
        self.down: set[str] = set()

    def add(self, part: Part) -> Part:
        """Take it in and start it."""
        self.parts[part.name] = part
        part.start()
        return part

    def up(self, prefix: str = "") -> list[Part]:
        """Those that run, and whose names begin so."""
        self._supervise()
        return [part for name, part in self.parts.items() if name.startswith(prefix) and name not in self.down]

    def check(self) -> None:
        """No process has died that was not killed on purpose."""
        self._supervise()
        dead = {name: part.process.returncode for name, part in self.parts.items() if not part.running}
        assert dead.keys() == self.down, f"died unexpectedly: {dead}, expected {sorted(self.down)}"

    def kill(self, name: str) -> int:
        """Kill this process; it dies of that, what it had started dies with it, and nothing else. Its identifier."""
        part = self.parts[name]
        with self._deaths(name, _pool_of(name)):
            part.kill()
            self.down.add(name)
        return part.pid

    def kill_pool(self, name: str) -> int:
        """Kill the process of this worker that runs jobs, and nothing else. Its identifier."""
        until(lambda: self.parts[name].pool() is not None, DEATH_S, f"{name} has a process for jobs")
        pool = self.parts[name].pool()
        assert pool is not None
        with self._deaths(_pool_of(name)):
            pool.kill()
        return pool.pid

    def revive(self, name: str) -> None:
        """Start a killed process again."""
        self.parts[name].start()
        self.down.discard(name)

    def stop(self) -> None:
        """End everything that is left."""
        for part in reversed(self.parts.values()):
            part.end()

    def _supervise(self) -> None:
        """Start workers again, as their supervisor does, that ended because of a kill in their first moments."""
        for name, part in self.parts.items():
            if name not in self.down and not part.running and part.lost_its_start:
                part.start()

    def _census(self) -> dict[str, psutil.Process]:
        found = {part.name: psutil.Process(part.pid) for part in self.up()}
        pools = {_pool_of(part.name): part.pool() for part in self.up("worker")}
        return found | {name: one for name, one in pools.items() if one is not None}

    @contextmanager
    def _deaths(self, *names: str) -> Iterator[None]:
        """Inside, exactly these die."""
        self.check()
        before = self._census()
        yield
        for name in names:
            if name in before:
                until(lambda one=before[name]: not alive(one), DEATH_S, f"{name} is dead")  # type: ignore[misc]
        dead = {name for name, one in before.items() if not alive(one)}
        assert dead == before.keys() & set(names), f"killed {names}, dead are {sorted(dead)}"
        self.check()


def _pool_of(name: str) -> str:
    return f"{name}/pool"


def _prefix(user: str | None) -> list[str]:
    """Have the kernel kill it with its parent, and run it as another user."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        assert user is None, "setpriv (util-linux) is missing"
        return []
    identity = [] if user is None else ["--reuid", user, "--regid", user, "--clear-groups"]
    return [setpriv, *identity, "--pdeathsig", "KILL", "--"]
