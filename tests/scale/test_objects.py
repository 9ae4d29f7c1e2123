"""Files of jobs in a bucket: what is visible when, what is left, what is swept, and what is held in memory."""

import tracemalloc
from pathlib import Path

import pytest

from jobs import objects
from jobs.blobs import SCAN_FILE, Blobs
from jobs.database import open_database, upgrade
from jobs.errors import InvalidJobIdError
from jobs.models import JobRequest
from jobs.objects import BucketBlobs
from jobs.repository import JobRepository
from jobs.submission import submit
from ncagate.bucket import CHUNK_BYTES, Bucket, Location, StorageUnavailableError
from tests.chaos.proxy import Network
from tests.scale.s3 import S3Server

JOB = "0123456789abcdef" * 2
MIB = 1 << 20


@pytest.fixture
def blobs(tmp_path: Path, bucket: Bucket) -> BucketBlobs:
    return BucketBlobs(tmp_path / "one", bucket)


@pytest.fixture
def elsewhere(tmp_path: Path, bucket: Bucket) -> BucketBlobs:
    """The same bucket, seen from another machine."""
    return BucketBlobs(tmp_path / "two", bucket)


def put_input(blobs: Blobs, *contents: bytes) -> None:
    with blobs.staging() as staged:
        for number, content in enumerate(contents):
            (staged / f"{number:04}").write_bytes(content)
        blobs.commit_input(staged, JOB)


def put_result(blobs: Blobs, attempt: int, content: bytes = b"mask", *, name: str = "mask.nii.gz") -> None:
    with blobs.staging() as staged:
        (staged / name).write_bytes(content)
        blobs.commit_result(staged, JOB, attempt)


class TestFiles:
    def test_input_comes_in_the_order_of_upload_and_leaves_no_copy(
        self, blobs: BucketBlobs, elsewhere: BucketBlobs, tmp_path: Path
    ) -> None:
        put_input(blobs, *(str(number).encode() for number in range(20)))
        with elsewhere.inputs(JOB) as files:
            assert [one.read_bytes() for one in files] == [str(number).encode() for number in range(20)]
        assert not [one for one in tmp_path.rglob("*") if one.is_file()]

    def test_the_scan_is_what_the_worker_made_or_the_one_file_that_was_sent(
        self, blobs: BucketBlobs, elsewhere: BucketBlobs
    ) -> None:
        nifti = (348).to_bytes(4, "little") + b"header"
        put_input(blobs, nifti)
        sent = elsewhere.scan(JOB, 1)
        assert sent is not None
        assert b"".join(sent.chunks()) == nifti
        put_result(blobs, 1, b"made", name=SCAN_FILE)
        made = elsewhere.scan(JOB, 1)
        assert made is not None
        assert b"".join(made.chunks()) == b"made"

    @pytest.mark.parametrize("contents", [(b"DICOM",), (b"\x1f\x8b", b"\x1f\x8b")])
    def test_a_series_is_no_scan_for_viewers(self, blobs: BucketBlobs, contents: tuple[bytes, ...]) -> None:
        put_input(blobs, *contents)
        assert blobs.scan(JOB, 1) is None

    def test_each_attempt_has_its_own_result(self, blobs: BucketBlobs, elsewhere: BucketBlobs) -> None:
        put_result(blobs, 1, b"first")
        put_result(elsewhere, 2, b"second")
        for attempt, content in ((1, b"first"), (2, b"second")):
            found = blobs.find(JOB, attempt, "mask.nii.gz")
            assert found is not None
            assert b"".join(found.chunks()) == content
        blobs.withdraw_result(JOB, 2)
        assert blobs.find(JOB, 2, "mask.nii.gz") is None
        assert blobs.find(JOB, 1, "mask.nii.gz") is not None

    def test_a_job_without_input_is_no_empty_job(self, blobs: BucketBlobs) -> None:
        with pytest.raises(FileNotFoundError), blobs.inputs(JOB):
            pass

    @pytest.mark.parametrize("job_id", ["..", "", "A" * 32, "0" * 31 + "/"])
    def test_only_identifiers_become_keys(self, blobs: BucketBlobs, job_id: str) -> None:
        with pytest.raises(InvalidJobIdError):
            blobs.find(job_id, 1, "mask.nii.gz")

    def test_a_large_file_is_never_in_memory(self, blobs: BucketBlobs, tmp_path: Path) -> None:
        large = tmp_path / "large"
        large.write_bytes(bytes(48 * MIB))
        with blobs.staging() as staged:
            large.rename(staged / "mask.nii.gz")
            blobs.ping()  # what the client itself takes comes before
            tracemalloc.start()
            blobs.commit_result(staged, JOB, 1)
        found = blobs.find(JOB, 1, "mask.nii.gz")
        assert found is not None
        assert sum(map(len, found.chunks())) == 48 * MIB
        assert len(next(iter(found.chunks(start=5)))) <= CHUNK_BYTES
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 * MIB


class TestErase:
    def test_leaves_no_object_and_no_other_job(self, blobs: BucketBlobs, s3: S3Server, url: str) -> None:
        put_input(blobs, b"scan")
        put_result(blobs, 1)
        name = Location.parse(url).bucket
        s3.put(name, f"some/prefix/jobs/{'f' * 32}/input/0000", b"another's")
        blobs.erase(JOB)
        assert s3.keys(name) == [f"some/prefix/jobs/{'f' * 32}/input/0000"]

    def test_the_row_stays_while_the_store_is_away(self, blobs: BucketBlobs, s3: S3Server, tmp_path: Path) -> None:
        engine = open_database(f"sqlite:///{tmp_path / 'jobs.db'}")
        upgrade(engine)
        repository = JobRepository(engine)
        put_input(blobs, b"scan")
        repository.create(JOB, JobRequest(model="tiny", version="1", min_dice=0.8, members=1))
        repository.request_cancel(JOB)
        s3.network.become(Network.CUT)
        with pytest.raises(StorageUnavailableError):
            repository.erase(JOB, first=blobs.erase_first)
        assert repository.get(JOB) is not None
        s3.network.become(Network.FINE)
        assert repository.erase(JOB, first=blobs.erase_first)
        with pytest.raises(FileNotFoundError), blobs.inputs(JOB):
            pass
        engine.dispose()


class TestSweep:
    def test_removes_old_objects_without_a_row(self, blobs: BucketBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
        put_input(blobs, b"scan")
        assert blobs.sweep(lambda job_id: False) == 0, "its row may be on its way"
        monkeypatch.setattr(objects, "YOUNG_S", -10.0)
        assert blobs.sweep(lambda job_id: True) == 0
        assert blobs.sweep(lambda job_id: False) == 1
        assert blobs.sweep(lambda job_id: False) == 0

    def test_leaves_alone_what_is_not_ours(
        self, blobs: BucketBlobs, s3: S3Server, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        s3.put(Location.parse(url).bucket, "some/prefix/jobs/notes/todo.txt", b"")
        monkeypatch.setattr(objects, "YOUNG_S", -10.0)
        assert blobs.sweep(lambda job_id: False) == 0


class TestAway:
    def test_an_upload_makes_no_row(self, blobs: BucketBlobs, s3: S3Server, tmp_path: Path) -> None:
        engine = open_database(f"sqlite:///{tmp_path / 'jobs.db'}")
        upgrade(engine)
        s3.network.become(Network.CUT)
        request = JobRequest(model="tiny", version="1", min_dice=0.8, members=1)
        with blobs.staging() as staged:
            (staged / "0000").write_bytes(b"scan")
            with pytest.raises(StorageUnavailableError):
                submit(JobRepository(engine), blobs, JOB, staged=staged, request=request)
        assert JobRepository(engine).get(JOB) is None
        engine.dispose()

    def test_a_bucket_that_is_not_there_is_no_missing_file(self, tmp_path: Path, s3: S3Server) -> None:
        blobs = BucketBlobs(tmp_path, Bucket("s3://no-such-bucket/prefix"))
        with pytest.raises(StorageUnavailableError):
            blobs.ping()

    @pytest.mark.parametrize("url", ["s3://", "s3://UPPER", "http://bucket", "s3://bucket/../x", "s3://bucket/a b"])
    def test_what_is_no_place_is_refused(self, url: str) -> None:
        with pytest.raises(ValueError, match="s3://bucket/prefix"):
            Location.parse(url)
