"""Series that are stripped as they arrive: what lies in the data folder, and what an archive gets back."""

import io
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from cryptography.fernet import Fernet
from nibabel.nifti1 import Nifti1Image
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import ComprehensiveSRStorage, SegmentationStorage  # type: ignore[attr-defined]
from typer.testing import CliRunner

from imaging.dicom_series import read_dicom_series
from imaging.limits import Limits
from imaging.volume import Volume
from jobs.archive import DeliveryRepository, ObjectRepository
from jobs.database import open_database, upgrade
from jobs.repository import JobRepository
from jobs.state import JobState, SeriesState
from model_store.registry import Registry
from ncagate.cli import app
from ncagate.demo import OUT, serving
from ncagate.orthanc import LOOPBACK, Orthanc, free_ports
from ncagate.pacs_demo import modality, wait_for_results
from ncagate.settings import Settings
from pacs.carriers import ArchiveCarrier
from pacs.collect import Collection, Receipt, open_collection
from pacs.config import PacsConfig, load_pacs
from pacs.delivery import Deliverer, deliverers
from pacs.errors import IdentitiesLockedError, IdentityKeyError, PacsError, WrongIdentityKeyError
from pacs.files import Stored
from pacs.retention import purge
from worker.run import Runner

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

NAME, PATIENT, BORN, DAY, SECRET = "Quendola^Xyvira", "PAT-918273", "19310713", "20190817", "sekrit-81724"
STUDY, SERIES, FRAME, INSTANCE = (f"1.2.276.99.{number}" for number in range(1, 5))
IDENTIFYING = ("Quendola", "Xyvira", PATIENT, BORN, DAY, SECRET, "1.2.276.99.")
Start = Callable[..., AbstractContextManager[Orthanc]]
CONFIG = """
[deidentify]
key_file = "{key}"
[[route]]
name = "hippocampus"
series_description = "{secret}"
model = "hippocampus"
destinations = ["archive"]
[[destination]]
name = "archive"
kind = "cstore"
host = "127.0.0.1"
port = {port}
ae_title = "ARCHIVE"
"""


class Place:
    """One deployment's data folder, without any process."""

    def __init__(self, folder: Path, port: int = 104) -> None:
        self.folder, self.key = folder, folder / "key"
        self.key.write_bytes(Fernet.generate_key())
        self.settings = Settings(data=folder / "data")
        self.settings.data.mkdir()
        upgrade(self.settings.database)
        self.jobs = JobRepository(open_database(self.settings.database))
        self.pacs = folder / "pacs.toml"
        self.archive_at(port)

    def archive_at(self, port: int) -> None:
        self.pacs.write_text(CONFIG.format(key=self.key, secret=SECRET, port=port))

    @property
    def config(self) -> PacsConfig:
        return load_pacs(self.pacs)

    def collection(self, config: PacsConfig | None = None) -> Collection:
        registry = Registry(self.settings.models)
        return open_collection(self.settings, config=config or self.config, jobs=self.jobs, registry=registry)

    def receive(self, files: Sequence[Path], **how: Any) -> list[Receipt]:
        """As the gateway does: from a folder that is gone afterwards."""
        collection = self.collection()
        with collection.blobs.staging() as folder:
            staged = []
            for number, file in enumerate(files):
                staged.append(folder / f"{number:04d}")
                staged[-1].write_bytes(file.read_bytes())
            return collection.receive(staged, sender="dicomweb", **how)

    def make_jobs(self) -> list[str]:
        collection, sent = self.collection(), list[str]()
        collection.series.released([one.id for one in collection.series.list()])
        collection.submit_complete(sent.append)
        return sent

    def segment(self) -> str:
        (job,) = self.make_jobs()
        Runner(self.settings).run_next()
        done = self.jobs.get(job)
        assert done is not None
        assert done.state == JobState.SUCCEEDED, done.error_detail
        return job

    def deliverer(self) -> Deliverer:
        (one,) = deliverers(self.settings, self.config)
        return one

    def found(self, values: Sequence[str] = IDENTIFYING) -> list[tuple[str, str]]:
        """Where any of the values lies in clear below the data folder."""
        return found_in(self.settings.data, values)


def found_in(folder: Path, values: Sequence[str] = IDENTIFYING) -> list[tuple[str, str]]:
    """Where any of the values lies in clear below a folder, names included."""
    found = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            content = path.read_bytes() if path.is_file() else b""
            found += [(str(path), one) for one in values if one in path.name or one.encode() in content]
    return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def scan(shared_data: Path, tmp_path: Path) -> list[Path]:
    """A real series of a made-up patient."""
    folder = tmp_path / "scan"
    folder.mkdir()
    files = []
    for number, source in enumerate(sorted((shared_data / "dicom" / "hippocampus_crop_1").iterdir())):
        dataset = pydicom.dcmread(source)
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = NAME, PATIENT, BORN
        dataset.StudyDate = dataset.SeriesDate = DAY
        dataset.SeriesDescription = dataset.AccessionNumber = SECRET
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = STUDY, SERIES, FRAME
        dataset.SOPInstanceUID = f"{INSTANCE}.{number + 1}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.private_block(0x0009, "ACME", create=True).add_new(1, "LO", SECRET)
        files.append(folder / f"{number:03d}")
        dataset.save_as(files[-1])
    return files


@contextmanager
def archive(place: Place) -> Iterator[list[bytes]]:
    """A real archive by C-STORE: the data sets that it got, as they came."""
    got: list[bytes] = []

    def store(event: evt.Event) -> int:
        chunked = _config.STORE_RECV_CHUNKED_DATASET  # where a listener of ours was in this process
        got.append(event.dataset_path.read_bytes() if chunked else event.encoded_dataset())
        return 0

    entity = AE(ae_title="ARCHIVE")
    for kind in (SegmentationStorage, ComprehensiveSRStorage):
        entity.add_supported_context(kind)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    place.archive_at(server.server_address[1])
    try:
        yield got
    finally:
        server.shutdown()


def as_dataset(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


class TestAtRest:
    def test_nothing_identifying_stays_in_clear(self, place: Place, scan: list[Path]) -> None:
        assert all(one.encode() in scan[0].read_bytes() for one in IDENTIFYING)
        assert {one.stored for one in place.receive(scan)} == {Stored.NEW}
        assert place.found() == []
        job = place.segment()
        assert place.found() == []
        assert ObjectRepository(place.jobs.engine).find({"job_id": job})

    def test_identities_are_for_their_owner_alone(self, place: Place, scan: list[Path]) -> None:
        place.receive(scan)
        kept = [one for one in (place.settings.blobs / "identities").rglob("*") if one.is_file()]
        assert len(kept) == len(scan) + 1
        assert {stat.S_IMODE(one.stat().st_mode) for one in kept} == {0o600}

    def test_the_key_is_not_there(self, place: Place, scan: list[Path]) -> None:
        place.receive(scan)
        assert place.found([place.key.read_text()]) == []

    def test_the_row_has_other_identifiers_and_the_sender_hears_its_own(self, place: Place, scan: list[Path]) -> None:
        (receipt,) = place.receive(scan[:1])
        (row,) = place.collection().series.list()
        assert receipt.identity is not None
        assert receipt.identity.instance == f"{INSTANCE}.1"
        assert row.id == receipt.series
        assert (row.study_uid[:5], row.series_uid[:5]) == ("2.25.", "2.25.")


class TestArrival:
    def test_again_it_is_the_same(self, place: Place, scan: list[Path]) -> None:
        place.receive(scan)
        assert {one.stored for one in place.receive(scan)} == {Stored.SAME}

    def test_another_patient_under_the_same_identifier_is_not(self, place: Place, scan: list[Path]) -> None:
        place.receive(scan)
        dataset = pydicom.dcmread(scan[0])
        dataset.PatientName = "Somebody^Else"
        dataset.save_as(scan[0])
        assert place.receive(scan[:1])[0].stored == Stored.OTHER

    def test_parts_become_one_series_and_one_job(self, place: Place, scan: list[Path]) -> None:
        parts = place.receive(scan[:10]), place.receive(scan[10:])
        assert len({one.series for part in parts for one in part}) == 1
        (job,) = place.make_jobs()
        assert len(place.collection().blobs.input_files(job)) == len(scan)

    def test_two_at_once(self, place: Place, scan: list[Path]) -> None:
        halves = [scan[:20], scan[12:]]
        threads = [threading.Thread(target=place.receive, args=(half,)) for half in halves]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        (job,) = place.make_jobs()
        blobs = place.collection().blobs
        with blobs.identities(job) as identities:
            assert len(blobs.input_files(job)) == len(identities) == len(scan)

    def test_objects_of_another_study_are_refused_by_what_they_were(self, place: Place, scan: list[Path]) -> None:
        assert [one.stored for one in place.receive(scan[:1], study=STUDY)] == [Stored.NEW]
        assert [one.stored for one in place.receive(scan[1:2], study="1.2.3")] == [None]

    def test_what_no_route_wants_is_forgotten_with_its_identity(self, place: Place, scan: list[Path]) -> None:
        place.receive(scan)
        config = place.config
        unwanted = config.model_copy(update={"route": ()})
        collection = place.collection(unwanted)
        collection.series.released([one.id for one in collection.series.list()])
        collection.submit_complete(lambda job: None)
        (row,) = collection.series.list()
        assert row.state == SeriesState.UNROUTED
        assert [one.name for one in (place.settings.blobs / "identities").rglob("*") if one.is_file()] == ["key-check"]

    def test_the_image_is_the_same(self, place: Place, scan: list[Path]) -> None:
        place.receive(scan)
        (job,) = place.make_jobs()
        limits = Limits()
        before = read_dicom_series(scan, limits=limits)
        after = read_dicom_series(place.collection().blobs.input_files(job), limits=limits)
        np.testing.assert_array_equal(before.array, after.array)
        np.testing.assert_array_equal(before.affine, after.affine)


class TestKey:
    def test_none_accepts_nothing(self, place: Place, scan: list[Path]) -> None:
        place.key.unlink()
        with pytest.raises(IdentityKeyError) as error:
            place.receive(scan)
        assert error.value.code == "identity_key_unreadable"
        assert place.found() == []

    @pytest.mark.parametrize("content", [b"", b"secret", b"A" * 44])
    def test_one_that_is_none(self, place: Place, content: bytes) -> None:
        place.key.write_bytes(content)
        with pytest.raises(IdentityKeyError):
            place.collection()

    def test_another_one_accepts_nothing_and_loses_nothing(self, place: Place, scan: list[Path]) -> None:
        place.receive(scan[:10])
        right = place.key.read_bytes()
        place.key.write_bytes(Fernet.generate_key())
        for start in (place.collection, place.deliverer):
            with pytest.raises(WrongIdentityKeyError) as error:
                start()
            assert error.value.code == "identity_key_wrong"
        place.key.write_bytes(right)
        place.receive(scan[10:])
        place.segment()

    @pytest.mark.parametrize("command", ["serve", "gateway", "listen", "deliver"])
    def test_every_process_says_so_and_does_not_start(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, command: str
    ) -> None:
        place.collection()
        place.key.write_bytes(Fernet.generate_key())
        monkeypatch.setenv("NCAGATE_PACS", str(place.folder / "pacs.toml"))
        monkeypatch.setenv("NCAGATE_DATA", str(place.settings.data))
        answer = CliRunner().invoke(app, [command])
        assert answer.exit_code == 2
        assert "[identity_key_wrong]" in answer.output


class TestDelivery:
    def test_the_archive_gets_names_back_over_its_own_images(self, place: Place, scan: list[Path]) -> None:
        with archive(place) as got:
            place.receive(scan)
            job = place.segment()
            assert place.deliverer().deliver_one()
        assert len(got) == 2
        for dataset in map(as_dataset, got):
            assert (dataset.PatientName, dataset.PatientID, dataset.StudyDate) == (NAME, PATIENT, DAY)
            assert (dataset.StudyInstanceUID, dataset.AccessionNumber) == (STUDY, SECRET)
            assert "PatientIdentityRemoved" not in dataset
        segmentation = hd.seg.Segmentation.from_dataset(
            next(one for one in map(as_dataset, got) if one.Modality == "SEG")
        )
        assert segmentation.FrameOfReferenceUID == FRAME
        self.check_mask(segmentation, read_dicom_series(scan, limits=Limits()), place, job)
        assert place.found() == []

    def check_mask(self, segmentation: Any, volume: Volume, place: Place, job: str) -> None:
        """The mask over the original instances is that of the job, voxel for voxel."""
        instances = [str(pydicom.dcmread(one).SOPInstanceUID) for one in volume.source]
        frames = segmentation.get_pixels_by_source_instance(
            instances, combine_segments=True, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        (path,) = (place.settings.blobs / "jobs" / job).glob("result-*/mask.nii*")
        labels = np.asarray(Nifti1Image.from_filename(path).dataobj)
        assert labels.any()
        np.testing.assert_array_equal(frames.transpose(2, 1, 0), labels)

    def test_again_with_the_same_bytes(self, place: Place, scan: list[Path]) -> None:
        with archive(place) as got:
            place.receive(scan)
            job = place.segment()
            row = place.jobs.get(job)
            assert row is not None
            for _ in range(2):
                place.deliverer().carrier.carry(row)
        assert got[:2] == got[2:]

    def test_days_later_when_the_series_is_gone(self, place: Place, scan: list[Path]) -> None:
        with archive(place) as got:
            place.receive(scan)
            place.segment()
            collection = place.collection()
            (row,) = collection.series.list()
            collection._erase([row.id])
            assert not (place.settings.blobs / "identities" / row.id).exists()
            place.deliverer().deliver_one()
        assert {str(as_dataset(one).PatientName) for one in got} == {NAME}

    def test_never_without_the_key(self, place: Place, scan: list[Path]) -> None:
        with archive(place) as got:
            place.receive(scan)
            job = place.segment()
            deliverer = place.deliverer()
            assert isinstance(deliverer.carrier, ArchiveCarrier)
            deliverer = replace(deliverer, carrier=replace(deliverer.carrier, vault=None))
            row = place.jobs.get(job)
            assert row is not None
            with pytest.raises(IdentitiesLockedError) as error:
                deliverer.carrier.carry(row)
            deliverer.deliver_one()
        assert got == []
        assert error.value.code == "identities_locked"
        (delivery,) = DeliveryRepository(place.jobs.engine).of_job(job)
        assert delivery.due_at is not None  # not lost: it is tried again

    def test_identities_go_with_the_job(self, place: Place, scan: list[Path]) -> None:
        place.receive(scan)
        job, collection = place.segment(), place.collection()
        assert collection.erase(job)
        with collection.blobs.identities(job) as identities:
            assert identities == []
        left = [one for one in (place.settings.blobs / "identities").rglob("*") if one.is_file()]
        assert [one.name for one in left] == ["key-check"]

    def test_identities_go_when_their_time_is_over(self, place: Place, scan: list[Path]) -> None:
        place.receive(scan)
        job, collection = place.segment(), place.collection()
        assert purge(collection, keep_days=0) == 0  # the archive has still to get it
        with archive(place):
            place.deliverer().deliver_one()
        assert purge(collection, keep_days=1) == 0
        assert purge(collection, keep_days=0) == 1
        assert place.jobs.get(job) is None
        assert collection.series.list() == []
        left = [one.name for one in place.settings.blobs.rglob("*") if one.is_file()]
        assert left == ["key-check"]


class TestWithOrthanc:
    @pytest.mark.parametrize("kind", ["stow", "cstore"])
    def test_there_and_back(
        self, orthanc: Start, scan: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
    ) -> None:
        """All processes of the service, and an archive that sends its series and gets the results."""
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the service's data folder is made there
        OUT.mkdir(exist_ok=True)  # for the service's log
        http, dicom = free_ports(2)
        key, routing = tmp_path / "key", tmp_path / "pacs.toml"
        key.write_bytes(Fernet.generate_key())
        addresses = {"NCAGATE_DICOMWEB": f"http://{LOOPBACK}:{http}/dicomweb", "NCAGATE_DICOM_PORT": str(dicom)}
        with orthanc(NCAGATE_KIND=kind, ORTHANC_STABLE_AGE="1", **addresses) as stored:
            table = CONFIG.replace("ARCHIVE", "ORTHANC").format(key=key, secret=SECRET, port=stored.dicom_port)
            routing.write_text(f'quiet_s = 2\n{table}\n[listen]\nhost = "{LOOPBACK}"\nport = {dicom}\n')
            with serving(port=http, NCAGATE_PACS=str(routing)):
                stored.store(scan)
                results = {modality(one): stored.files(one) for one in wait_for_results(stored, STUDY)}
                (data,) = tmp_path.glob("ncagate-demo-*")
                deadline = time.monotonic() + 10.0
                while (left := found_in(data)) and time.monotonic() < deadline:  # a delivery may be ending
                    time.sleep(0.1)
                assert left == []
        assert results.keys() >= {"SEG", "SR"}
        for kind_of in ("SEG", "SR"):
            (made,) = map(as_dataset, results[kind_of])
            assert (made.PatientName, made.StudyInstanceUID) == (NAME, STUDY)
        segmentation = as_dataset(results["SEG"][0])
        (referenced,) = segmentation.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == SERIES
        images = {str(as_dataset(one).SOPInstanceUID) for one in results["MR"]}
        assert {str(one.ReferencedSOPInstanceUID) for one in referenced.ReferencedInstanceSequence} <= images
        log = (OUT / "service.log").read_text()
        assert [one for one in IDENTIFYING if one in log] == []


class TestWithout:
    def test_without_the_section_objects_are_kept_as_they_come(self, place: Place, scan: list[Path]) -> None:
        config = place.config.model_copy(update={"deidentify": None})
        collection = place.collection(config)
        with collection.blobs.staging() as folder:
            (folder / "0").write_bytes(scan[0].read_bytes())
            collection.receive([folder / "0"], sender="dicomweb")
        assert not (place.settings.blobs / "identities").exists()
        assert place.found()

    def test_errors_are_of_this_room(self) -> None:
        assert issubclass(WrongIdentityKeyError, PacsError)
