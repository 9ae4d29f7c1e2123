"""A series whose parts come to two machines is one series, and one job."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.database import open_database, upgrade
from jobs.repository import JobRepository
from model_store.manifest import Manifest
from model_store.registry import open_registry
from ncagate.settings import Settings
from pacs.collect import Collection, open_collection
from pacs.config import DeidentifySection, PacsConfig, Route
from pacs.errors import InvalidPacsConfigError
from pacs.files import Stored

Machines = Callable[..., list[Collection]]
QUIET_S = 0.001


@pytest.fixture
def machines(tmp_path: Path, url: str, publish_tiny: Callable[..., Manifest]) -> Machines:
    """Two that receive, with one database and one bucket."""
    publish_tiny(tmp_path / "models")
    database = f"sqlite:///{tmp_path / 'jobs.db'}"
    upgrade(database)

    def make(**sections: object) -> list[Collection]:
        config = PacsConfig.model_validate({"quiet_s": QUIET_S, "route": [Route(name="all", model="tiny")], **sections})
        chosen = {"database_url": database, "blobs_url": url, "store": tmp_path / "models"}
        both = [Settings(data=tmp_path / name, **chosen) for name in ("one", "two")]  # type: ignore[arg-type]
        return [
            open_collection(
                one, config=config, jobs=JobRepository(open_database(database)), registry=open_registry(one)
            )
            for one in both
        ]

    return make


class TestSeries:
    def test_parts_at_two_machines_become_one_job(
        self, machines: Machines, make_slices: Callable[..., list[Path]], tmp_path: Path
    ) -> None:
        one, two = machines()
        files = make_slices(tmp_path / "sent", 6)
        made: list[str] = []
        assert [r.stored for r in one.receive(files[:3], sender="A")] == [Stored.NEW] * 3
        assert [r.stored for r in two.receive(files[2:], sender="A")] == [Stored.SAME] + [Stored.NEW] * 3
        time.sleep(10 * QUIET_S)
        two.submit_complete(made.append)
        one.submit_complete(made.append)
        (job_id,) = made
        with one.blobs.inputs(job_id) as inputs:
            assert sorted(one.read_bytes() for one in inputs) == sorted(one.read_bytes() for one in files)

    def test_two_that_make_the_job_at_once_make_it_once(
        self, machines: Machines, make_slices: Callable[..., list[Path]], tmp_path: Path
    ) -> None:
        both = machines()
        (receipt, *_) = both[0].receive(make_slices(tmp_path / "sent", 3), sender="A")
        time.sleep(10 * QUIET_S)
        claimed = both[0].series.claim(60.0)
        assert claimed is not None
        assert claimed.id == receipt.series
        made: list[str] = []

        def decide(one: Collection) -> None:
            try:
                one._submit(claimed, made.append)
            except Exception:  # the slower one: its lease would have it tried again
                return

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(decide, both))
        (job,) = both[1].jobs.list()
        assert made == [job.id]
        with both[1].blobs.inputs(job.id) as inputs:
            assert len(inputs) == 3

    def test_another_object_of_the_same_name_is_told_from_the_same(
        self, machines: Machines, make_slices: Callable[..., list[Path]], tmp_path: Path
    ) -> None:
        one, two = machines()
        one.receive(make_slices(tmp_path / "sent", 1), sender="A")
        (receipt,) = two.receive(make_slices(tmp_path / "other", 1, PatientName="Other"), sender="A")
        assert receipt.stored is Stored.OTHER

    def test_identities_stay_on_one_machine_and_so_want_a_folder(self, machines: Machines, tmp_path: Path) -> None:
        with pytest.raises(InvalidPacsConfigError, match="NCAGATE_BLOBS_URL"):
            machines(deidentify=DeidentifySection(key_file=tmp_path / "key"))
