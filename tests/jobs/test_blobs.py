from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.blobs import Blobs
from jobs.errors import InvalidJobIdError, JobGoneError

JOB = "0123456789abcdef" * 2
LONG_AGO = 1_000_000.0


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    made = Blobs(tmp_path)
    made.prepare()
    return made


def commit_input(blobs: Blobs, job_id: str = JOB) -> None:
    with blobs.staging() as staged:
        (staged / "0001").write_bytes(b"second")
        (staged / "0000").write_bytes(b"first")
        blobs.commit_input(staged, job_id)


def commit_result(blobs: Blobs, attempt: int = 1) -> Path:
    with blobs.staging() as staged:
        (staged / "mask.nii.gz").write_bytes(b"mask")
        blobs.commit_result(staged, JOB, attempt)
    return blobs.result_dir(JOB, attempt)


class TestStaging:
    def test_leaves_nothing_behind_after_an_exception(self, blobs: Blobs, tmp_path: Path) -> None:
        def crash() -> None:
            with blobs.staging() as staged:
                (staged / "0000").write_bytes(b"half")
                raise RuntimeError("crash")

        with pytest.raises(RuntimeError, match="crash"):
            crash()
        assert list((tmp_path / "tmp").iterdir()) == []


class TestCommit:
    def test_input_files_come_in_the_order_of_upload(self, blobs: Blobs) -> None:
        commit_input(blobs)
        assert [path.read_bytes() for path in blobs.input_files(JOB)] == [b"first", b"second"]

    def test_a_result_appears_whole(self, blobs: Blobs) -> None:
        commit_input(blobs)
        assert not blobs.result_dir(JOB, 1).exists()
        assert commit_result(blobs) == blobs.result_dir(JOB, 1)
        assert (blobs.result_dir(JOB, 1) / "mask.nii.gz").read_bytes() == b"mask"

    def test_each_attempt_has_its_own_result(self, blobs: Blobs) -> None:
        commit_input(blobs)
        assert commit_result(blobs, 1) != commit_result(blobs, 2)

    @pytest.mark.parametrize("failing_call", range(1, 4))
    def test_dying_at_any_fsync_shows_no_half_result(
        self, blobs: Blobs, monkeypatch: pytest.MonkeyPatch, failing_call: int
    ) -> None:
        commit_input(blobs)
        calls = 0

        def fsync(descriptor: int) -> None:
            nonlocal calls
            calls += 1
            if calls == failing_call:
                raise OSError("power cut")

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="power cut"):
            commit_result(blobs)
        folder = blobs.result_dir(JOB, 1)
        assert not folder.exists() or [path.name for path in folder.iterdir()] == ["mask.nii.gz"]

    def test_everything_is_synced_before_the_rename(self, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
        commit_input(blobs)
        order: list[str] = []
        rename = Path.rename

        def renamed(self: Path, target: Path) -> Path:
            order.append("rename")
            return rename(self, target)

        monkeypatch.setattr(os, "fsync", lambda descriptor: order.append("fsync"))
        monkeypatch.setattr(Path, "rename", renamed)
        commit_result(blobs)
        assert order == ["fsync", "fsync", "rename", "fsync"]

    def test_a_result_of_an_erased_job_is_refused_and_dropped(self, blobs: Blobs, tmp_path: Path) -> None:
        commit_input(blobs)
        blobs.erase(JOB)
        with pytest.raises(JobGoneError):
            commit_result(blobs)
        assert list((tmp_path / "jobs").iterdir()) == list((tmp_path / "tmp").iterdir()) == []

    @pytest.mark.parametrize("job_id", ["../../etc", "", "0" * 31, "G" * 32, "a" * 32 + "/x"])
    def test_only_identifiers_become_paths(self, blobs: Blobs, job_id: str) -> None:
        with pytest.raises(InvalidJobIdError):
            blobs.result_dir(job_id, 1)


class TestErase:
    def test_removes_all_files_of_one_job(self, blobs: Blobs, tmp_path: Path) -> None:
        commit_input(blobs)
        commit_input(blobs, "f" * 32)
        blobs.erase(JOB)
        blobs.erase(JOB)
        assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["f" * 32]


class TestSweep:
    def test_removes_scratch_whose_process_died(self, blobs: Blobs, tmp_path: Path) -> None:
        code = (
            "import os, sys; from pathlib import Path; from jobs.blobs import Blobs\n"
            "with Blobs(Path(sys.argv[1])).staging() as staged:\n"
            "    (staged / '0000').write_bytes(b'half'); os._exit(1)"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
        (left,) = (tmp_path / "tmp").iterdir()
        assert blobs.sweep(lambda job_id: True) == 0, "young scratch is left alone"
        os.utime(left, (LONG_AGO, LONG_AGO))
        assert blobs.sweep(lambda job_id: True) == 1
        assert not left.exists()

    def test_leaves_scratch_that_is_in_use(self, blobs: Blobs) -> None:
        with blobs.staging() as staged:
            os.utime(staged, (LONG_AGO, LONG_AGO))
            assert blobs.sweep(lambda job_id: True) == 0
            assert staged.is_dir()

    def test_removes_old_jobs_without_a_row(self, blobs: Blobs, tmp_path: Path) -> None:
        commit_input(blobs)
        assert blobs.sweep(lambda job_id: False) == 0, "its row may be on its way"
        os.utime(tmp_path / "jobs" / JOB, (LONG_AGO, LONG_AGO))
        assert blobs.sweep(lambda job_id: True) == 0
        assert blobs.sweep(lambda job_id: False) == 1
        assert list((tmp_path / "jobs").iterdir()) == []
