from __future__ import annotations

from pathlib import Path

import pytest

from ncagate.capacity import cores, memory_bytes, threads_for_one, worker_processes
from ncagate.settings import Settings

GIB = 1024**3
AUTOMATIC = Settings(workers=0, threads=0)


def container(folder: Path, *, cpu: str = "max 100000", memory: str = "max") -> Path:
    """The limits of a container, as its kernel shows them."""
    (folder / "cpu.max").write_text(cpu + "\n")
    (folder / "memory.max").write_text(memory + "\n")
    return folder


class TestMachine:
    def test_without_a_container_it_is_all_there_is(self, tmp_path: Path) -> None:
        assert cores(tmp_path) >= 1
        assert memory_bytes(tmp_path) > GIB // 4

    def test_a_quota_bounds_the_cores_and_leaves_one(self, tmp_path: Path) -> None:
        assert cores(container(tmp_path, cpu="100000 100000")) == 1
        assert cores(container(tmp_path, cpu="50000 100000")) == 1
        assert cores(container(tmp_path, cpu="max 100000")) == cores(tmp_path / "none")

    def test_a_limit_bounds_the_memory(self, tmp_path: Path) -> None:
        assert memory_bytes(container(tmp_path, memory=str(GIB // 8))) == GIB // 8
        assert memory_bytes(container(tmp_path, memory="max")) == memory_bytes(tmp_path / "none")


class TestLayout:
    def test_there_is_a_process_a_core_where_memory_allows(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ncagate.capacity.cores", lambda cgroup: 4)
        monkeypatch.setattr("ncagate.capacity.memory_bytes", lambda cgroup: 64 * GIB)
        assert worker_processes(AUTOMATIC) == 4
        monkeypatch.setattr("ncagate.capacity.memory_bytes", lambda cgroup: 2 * GIB)
        assert worker_processes(AUTOMATIC) == 2
        monkeypatch.setattr("ncagate.capacity.memory_bytes", lambda cgroup: GIB // 2)
        assert worker_processes(AUTOMATIC) == 1
        assert worker_processes(Settings(workers=3)) == 3
        assert worker_processes(Settings(engine="torch-cuda")) == 1

    def test_a_scan_alone_has_all_cores_and_several_share_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ncagate.capacity.cores", lambda cgroup: 8)
        monkeypatch.setattr("ncagate.capacity.memory_bytes", lambda cgroup: 64 * GIB)
        assert [threads_for_one(AUTOMATIC, under_way) for under_way in (0, 1, 2, 3, 8, 1000)] == [8, 8, 4, 2, 1, 1]
        assert threads_for_one(Settings(workers=2), 1000) == 4
        assert threads_for_one(Settings(threads=5), 1000) == 5
