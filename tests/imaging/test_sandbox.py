"""Reading in a process of its own. Nothing here is made up: processes hang, are killed, want memory, and are forked."""

import gzip
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from nibabel.nifti1 import Nifti1Header

from imaging import sandbox
from imaging.errors import (
    MissingSliceError,
    ReaderCrashedError,
    ReaderOutOfMemoryError,
    ReaderTimeoutError,
    UnknownFormatError,
)
from imaging.limits import MEBI, Limits
from imaging.nifti import write_nifti
from imaging.read import read_scan
from imaging.request import Request
from imaging.sandbox import ReaderLostError, read_in_sandbox
from imaging.sandbox_protocol import parse_answer
from imaging.volume import Volume

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
    pytest.mark.skipif(sys.platform != "linux", reason="address space is bounded, and processes found, on Linux"),
]

Series = Callable[..., list[Path]]
ARRAY = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
WAIT_S = 10.0


def request(folder: Path, *paths: Path, volumes: tuple[int, ...] = (), **limits: int) -> Request:
    return Request(paths, folder, Limits(**limits), volumes)


def server() -> psutil.Process:
    """The process that reads for this one; it is started where it does not run."""
    sandbox.start_sandbox()
    process = sandbox._server._process
    assert process is not None
    return psutil.Process(process.pid)


def reader() -> psutil.Process:
    """The child that reads right now."""
    process = soon(lambda: sandbox._server._process)
    child: psutil.Process
    (child,) = soon(lambda: psutil.pid_exists(process.pid) and psutil.Process(process.pid).children())
    soon(lambda: Path(f"/proc/{child.pid}/fd/0").readlink() == Path(os.devnull))
    return child


def soon(condition: Callable[[], Any]) -> Any:
    """What the condition gives, as soon as it is true."""
    end = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)
    return found


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    write_nifti(path, ARRAY, np.diag([1.0, 2.0, 3.0, 1.0]))
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file whose first byte never comes."""
    path = tmp_path / "endless"
    os.mkfifo(path)
    return path


@pytest.fixture
def zeros(tmp_path: Path) -> Path:
    """300 MiB of voxels in a file of 300 kB."""
    header = Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((512, 512, 300))
    header["magic"], header["vox_offset"] = b"n+1", 352
    path = tmp_path / "zeros.nii.gz"
    with gzip.open(path, "wb") as file:
        file.write(bytes(header.binaryblock) + bytes(4))
        for _ in range(300):
            file.write(bytes(MEBI))
    return path


class TestReading:
    def test_a_nifti_file_is_read_as_without(self, tmp_path: Path, nifti: Path) -> None:
        same(read_in_sandbox(request(tmp_path, nifti)), read_scan(request(tmp_path, nifti)))

    def test_channels_come_in_their_order(self, tmp_path: Path) -> None:
        header = Nifti1Header()
        header.set_data_dtype(np.float32)
        header.set_data_shape((3, 4, 5, 2))
        header["magic"], header["vox_offset"] = b"n+1", 352
        voxels = np.arange(120, dtype=np.float32)
        (tmp_path / "a").write_bytes(bytes(header.binaryblock) + bytes(4) + voxels.tobytes())
        wanted = request(tmp_path, tmp_path / "a", volumes=(1, 0))
        volume = read_in_sandbox(wanted)
        assert [one[0, 0, 0] for one in volume.channels] == [60, 0]
        same(volume, read_scan(wanted))

    def test_so_is_a_series_with_its_files_and_warnings(self, tmp_path: Path, series: Series) -> None:
        paths = series()
        (tmp_path / "README").write_text("Insert the disc.")
        wanted = request(tmp_path, *paths, tmp_path / "README")
        volume = read_in_sandbox(wanted)
        same(volume, read_scan(wanted))
        assert volume.warnings == ("1 file without an image left out: 1 not DICOM.",)
        assert volume.source == tuple(paths)

    def test_a_refusal_comes_through_with_its_words(self, tmp_path: Path, series: Series) -> None:
        paths = series(count=8)
        with pytest.raises(MissingSliceError, match=r": 1$"):
            read_in_sandbox(request(tmp_path, *paths[:3], *paths[4:]))

    def test_what_the_file_system_refuses_is_its_own_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_in_sandbox(request(tmp_path, tmp_path / "none"))

    def test_threads_wait_for_each_other(self, tmp_path: Path, nifti: Path) -> None:
        with ThreadPoolExecutor(4) as pool:
            for volume in pool.map(lambda _: read_in_sandbox(request(tmp_path, nifti)), range(12)):
                np.testing.assert_array_equal(volume.array, ARRAY)

    def test_one_server_reads_them_all(self, tmp_path: Path, nifti: Path) -> None:
        before = server().pid
        for _ in range(3):
            read_in_sandbox(request(tmp_path, nifti))
        assert server().pid == before
        assert server().num_threads() == 1


class TestHarm:
    """Whatever a scan does to its reader is a refusal with a code of its own, and the next one is read."""

    @pytest.fixture(autouse=True)
    def next_one_is_read(self, tmp_path: Path, nifti: Path) -> Iterator[None]:
        before = server().pid
        yield
        np.testing.assert_array_equal(read_in_sandbox(request(tmp_path, nifti)).array, ARRAY)
        assert server().pid == before
        assert server().children() == []

    def test_hanging(self, tmp_path: Path, endless: Path) -> None:
        start = time.monotonic()
        with pytest.raises(ReaderTimeoutError):
            read_in_sandbox(request(tmp_path, endless, seconds=1))
        assert time.monotonic() - start < 5

    def test_wanting_more_memory_than_is_allowed(self, tmp_path: Path, zeros: Path) -> None:
        with pytest.raises(ReaderOutOfMemoryError):
            read_in_sandbox(request(tmp_path, zeros, memory=200 * MEBI))
        assert read_in_sandbox(request(tmp_path, zeros, memory=800 * MEBI)).array.shape == (512, 512, 300)

    @pytest.mark.parametrize(
        ("number", "error"),
        [
            (signal.SIGSEGV, ReaderCrashedError),
            (signal.SIGABRT, ReaderCrashedError),
            (signal.SIGKILL, ReaderOutOfMemoryError),
            (signal.SIGXCPU, ReaderTimeoutError),
            (signal.SIGTERM, ReaderLostError),
        ],
    )
    def test_dying_of_a_signal(
        self, tmp_path: Path, endless: Path, number: signal.Signals, error: type[Exception]
    ) -> None:
        killer = threading.Thread(target=lambda: reader().send_signal(number))
        killer.start()
        with pytest.raises(error):
            read_in_sandbox(request(tmp_path, endless))
        killer.join()


class TestProcesses:
    def test_a_server_that_was_killed_between_two_scans_is_replaced(self, tmp_path: Path, nifti: Path) -> None:
        before = server()
        before.kill()
        before.wait(WAIT_S)
        np.testing.assert_array_equal(read_in_sandbox(request(tmp_path, nifti)).array, ARRAY)
        assert server().pid != before.pid

    def test_a_fork_of_this_process_has_a_server_of_its_own(self, tmp_path: Path, nifti: Path) -> None:
        ours = server().pid
        queue = multiprocessing.get_context("fork").SimpleQueue()

        def other() -> None:
            volume = read_in_sandbox(request(tmp_path, nifti))
            queue.put((server().pid, volume.array.sum()))

        child = multiprocessing.get_context("fork").Process(target=other)
        child.start()
        theirs, total = queue.get()
        child.join()
        assert (total, child.exitcode) == (ARRAY.sum(), 0)
        assert theirs != ours
        assert server().pid == ours
        same(read_in_sandbox(request(tmp_path, nifti)), read_scan(request(tmp_path, nifti)))
        soon(lambda: not psutil.pid_exists(theirs))

    def test_server_and_reader_die_with_the_process_that_asked(self, tmp_path: Path, endless: Path) -> None:
        program = textwrap.dedent(
            """
            import sys
            from pathlib import Path
            from imaging.limits import Limits
            from imaging.request import Request
            from imaging.sandbox import read_in_sandbox
            read_in_sandbox(Request([Path(sys.argv[1])], Path(sys.argv[2]), Limits()))
            """
        )
        with subprocess.Popen([sys.executable, "-c", program, endless, tmp_path]) as asking:
            family = soon(lambda: len(found := psutil.Process(asking.pid).children(recursive=True)) == 2 and found)
            asking.kill()
        _, alive = psutil.wait_procs(family, WAIT_S)
        assert alive == []

    def test_the_reader_dies_with_the_server(self, tmp_path: Path, endless: Path) -> None:
        def kill() -> None:
            for _ in range(2):  # the scan is tried once more, by a new server
                child = reader()
                children.append(child)
                parent = child.parent()
                assert parent is not None
                parent.kill()
                psutil.wait_procs([child, parent], WAIT_S)

        children: list[psutil.Process] = []
        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(ReaderLostError):
            read_in_sandbox(request(tmp_path, endless))
        killer.join()
        assert len(children) == 2
        assert not any(child.is_running() for child in children)

    def test_the_reader_knows_no_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NCAGATE_DATABASE_URL", "postgresql://ncagate:secret@db/ncagate")
        sandbox._server.stop()
        environment = soon(lambda: Path(f"/proc/{server().pid}/environ").read_bytes())
        assert b"PATH=" in environment
        assert b"secret" not in environment
        assert b"NCAGATE" not in environment

    def test_what_a_decoder_writes_reaches_nobody(
        self, tmp_path: Path, series: Series, capfd: pytest.CaptureFixture[str], dcmtk: Callable[..., None]
    ) -> None:
        paths = series(count=2)
        packed = [tmp_path / f"packed-{number}" for number in range(2)]
        for path, target in zip(paths, packed, strict=True):
            dcmtk("dcmcjpeg", "+ee", path, target)
        wanted = request(tmp_path, *packed)
        read_scan(wanted)
        assert "12" in capfd.readouterr().err
        read_in_sandbox(wanted)
        assert capfd.readouterr() == ("", "")


class TestConfinement:
    def test_no_file_grows_past_the_budgets(self, tmp_path: Path) -> None:
        program = (
            "import errno, sys\nfrom imaging.limits import Limits\nfrom imaging.sandbox_server import _confine\n"
            "_confine(Limits(unpacked_bytes=100_000, voxels=30_000))\n"
            "with open(sys.argv[1], 'wb', buffering=0) as file:\n"
            "    written = file.write(bytes(120_000))\n"
            "    try:\n        file.write(b'x')\n"
            "    except OSError as error:\n        print(written, errno.errorcode[error.errno])\n"
        )
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], capture_output=True, text=True)
        assert (done.stdout, done.returncode) == ("120000 EFBIG\n", 0), done.stderr


class TestAnswers:
    """A reader that a file has taken over may answer anything."""

    TRUE = {  # noqa: RUF012
        "shape": [3, 4, 5], "channels": 1, "affine": np.eye(4).tolist(), "modality": "MR", "warnings": [],
        "source": [], "frames": [],
    }  # fmt: skip

    def parse(self, folder: Path, answer: Any) -> Volume:
        (folder / "voxels-0").write_bytes(ARRAY.tobytes(order="F"))
        return parse_answer(json.dumps(answer).encode(), request(folder, folder / "scan"), folder)

    def test_a_true_one(self, tmp_path: Path) -> None:
        np.testing.assert_array_equal(self.parse(tmp_path, {"volume": self.TRUE}).array, ARRAY)

    @pytest.mark.parametrize(
        "lie",
        [
            {"shape": [3, 4, 6]},
            {"shape": [-3, -4, 5]},
            {"shape": [3, 4]},
            {"shape": [2**40, 2**40, 2**40]},
            {"channels": 2},
            {"channels": 10**9},
            {"affine": [[1, 2], [3, 4]]},
            {"affine": "x"},
            {"source": ["/etc/passwd"]},
            {"source": ["{folder}/../secret"]},
            {"source": 5},
            {"frames": ["x"]},
            {"warnings": None},
        ],
        ids=str,
    )
    def test_a_lie(self, tmp_path: Path, lie: dict[str, Any]) -> None:
        if isinstance(lie.get("source"), list):
            lie = {"source": [one.format(folder=tmp_path) for one in lie["source"]]}
        with pytest.raises(ReaderCrashedError):
            self.parse(tmp_path, {"volume": {**self.TRUE, **lie}})

    @pytest.mark.parametrize("answer", [{}, [], None, 5, {"code": "no_such"}, {"code": []}, {"volume": []}])
    def test_no_answer(self, tmp_path: Path, answer: Any) -> None:
        with pytest.raises(ReaderCrashedError):
            self.parse(tmp_path, answer)

    @pytest.mark.parametrize("answer", [b"", b"\xff\xfe", b"[" * 100_000])
    def test_no_json(self, tmp_path: Path, answer: bytes) -> None:
        with pytest.raises(ReaderCrashedError):
            parse_answer(answer, request(tmp_path, tmp_path), tmp_path)

    def test_voxels_that_are_a_link_to_another_file(self, tmp_path: Path) -> None:
        (tmp_path / "other").write_bytes(ARRAY.tobytes(order="F"))
        (tmp_path / "voxels-0").symlink_to(tmp_path / "other")
        with pytest.raises(ReaderCrashedError):
            parse_answer(json.dumps({"volume": self.TRUE}).encode(), request(tmp_path, tmp_path), tmp_path)

    def test_a_long_speech_is_cut(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownFormatError) as caught:
            self.parse(tmp_path, {"code": "unknown_format", "detail": "x" * 10**6})
        assert len(str(caught.value)) < 5000


def same(one: Volume, other: Volume) -> None:
    assert len(one.channels) == len(other.channels)
    for here, there in zip(one.channels, other.channels, strict=True):
        np.testing.assert_array_equal(here, there)
    np.testing.assert_array_equal(one.affine, other.affine)
    for name in ("modality", "warnings", "source", "frames"):
        assert getattr(one, name) == getattr(other, name)
