"""DICOMweb: objects and series of another client do not exist; and no request says where results go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from ncagate.settings import Settings
from tests.service.conftest import Site
from worker.run import Runner

UID = "1.2.826.0.1.5"
PACS = """
quiet_s = 0.3

[[route]]
name = "heads"
modality = "MR"
model = "tiny"

[[destination]]
name = "archive"
kind = "stow"
url = "http://127.0.0.1:1/dicom-web"
"""


@pytest.fixture(scope="module")
def ward(
    serving: Any, shared_redis: Any, make_slices: Callable[..., list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, str]]:
    """A site where the client `ward` has sent a series by STOW-RS, and the job of it, which is done."""
    folder = tmp_path_factory.mktemp("ward")
    (folder / "pacs.toml").write_text(PACS)
    with serving(folder, redis_url=shared_redis.url, pacs=folder / "pacs.toml") as service:
        site = Site(service)
        files = [one.read_bytes() for one in make_slices(folder / "in", 18, uid=UID)]
        answer = store(site, "ward", files)
        assert answer.status_code == 200, answer.text
        settings = service.gateway.settings
        runner = Runner(Settings(data=settings.data, store=settings.models, threads=1, engine="torch"))
        job = ""
        while not job:
            job = next((one["id"] for one in site.ask("ward", "GET", "/jobs").json()["jobs"]), "")
        runner.run_next()
        assert site.ask("ward", "GET", f"/jobs/{job}").json()["state"] == "succeeded"
        runner.repository.close()
        yield site, job


def store(site: Site, who: str, files: list[bytes]) -> Any:
    body = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in files) + b"--b--\r\n"
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    return site.ask(who, "POST", "/dicomweb/studies", content=body, headers=headers)


def addresses(site: Site, job: str) -> list[str]:
    """Every address at which something of the ward's result can be read."""
    folder = site.service.gateway.blobs.result_dir(job, 1)
    paths = []
    for name in ("segmentation.dcm", "report.dcm"):
        made = dcmread(folder / name, stop_before_pixels=True)
        series = f"/dicomweb/studies/{made.StudyInstanceUID}/series/{made.SeriesInstanceUID}"
        paths += [series, f"{series}/instances/{made.SOPInstanceUID}"]
    paths.append(f"/dicomweb/studies/{UID}.1")
    return paths + [f"{one}/metadata" for one in paths]


class TestObjects:
    SEARCHES = (
        "/dicomweb/studies", "/dicomweb/series", "/dicomweb/instances", f"/dicomweb/studies/{UID}.1/series",
        f"/dicomweb/studies/{UID}.1/instances", f"/dicomweb/studies?StudyInstanceUID={UID}.1",
        "/dicomweb/instances?Modality=SEG&limit=500", "/dicomweb/instances?Modality=SEG,SR",
    )  # fmt: skip

    def test_their_client_reads_them_and_so_does_an_administrator(self, ward: tuple[Site, str]) -> None:
        site, job = ward
        for who in ("ward", "reader", "it"):
            for path in addresses(site, job):
                assert site.ask(who, "GET", path).status_code == 200, path
            for path in self.SEARCHES:
                assert site.ask(who, "GET", path).json() != [], path

    def test_to_another_client_they_do_not_exist(self, ward: tuple[Site, str]) -> None:
        site, job = ward
        for path in addresses(site, job):
            answer, unknown = site.ask("other", "GET", path), site.ask("other", "GET", path.replace(UID, "9.9"))
            assert (answer.status_code, answer.json()["code"]) == (404, "object_not_found"), path
            assert answer.json() | {"instance": ""} == unknown.json() | {"instance": ""}
        for path in self.SEARCHES:
            assert site.ask("other", "GET", path).json() == [], path

    def test_reading_them_is_told(self, ward: tuple[Site, str]) -> None:
        site, job = ward
        before = len(site.service.gateway.audit.list(subject=job))
        for path in addresses(site, job):
            site.ask("reader", "GET", path)
            site.ask("other", "GET", path)
        entries = site.service.gateway.audit.list(subject=job)[before:]
        assert len(entries) == len(addresses(site, job))
        assert {(one.client, one.action) for one in entries} == {("ward", "read")}

    def test_without_a_key_or_with_a_wrong_one_nobody_reads_them(self, ward: tuple[Site, str]) -> None:
        site, job = ward
        for path in [*addresses(site, job), *self.SEARCHES, "/series"]:
            for who in (None, "ncg_wrong"):
                assert site.ask(who, "GET", path).status_code == 401, path


class TestSeries:
    def test_are_their_clients(self, ward: tuple[Site, str]) -> None:
        site, job = ward
        for who in ("ward", "it"):
            assert [one["job"] for one in site.ask(who, "GET", "/series").json()["series"]] == [f"/jobs/{job}"]
        assert site.ask("other", "GET", "/series").json()["series"] == []

    def test_the_same_series_of_another_client_is_another_one(
        self, ward: tuple[Site, str], make_slices: Callable[..., list[Path]], tmp_path: Path
    ) -> None:
        """Nobody learns by sending it what another client has sent, and nobody gets into its series."""
        site, job = ward
        files = [one.read_bytes() for one in make_slices(tmp_path, 2, uid=UID, PatientID="P2")]
        answer = store(site, "other", files)
        assert (answer.status_code, set(answer.json())) == (200, {"00081199"})
        (other,) = site.ask("other", "GET", "/series").json()["series"]
        assert other["job"] != f"/jobs/{job}"
        assert [one["job"] for one in site.ask("ward", "GET", "/series").json()["series"]] == [f"/jobs/{job}"]
        assert len(site.service.gateway.blobs.input_files(job)) == 18


class TestDestinations:
    """They are the operator's: no request names one, an address least of all."""

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("destinations", "archive"), ("destination", "http://169.254.169.254/"), ("destinations[]", "archive"),
            ("url", "http://127.0.0.1:6379/"), ("route", "heads"), ("pacs", "/etc/passwd"), ("client", "ward"),
            ("priority\0", "urgent"), ("path", "/etc/passwd"), ("engine", "torch"),
        ],
    )  # fmt: skip
    def test_none_is_taken_from_a_form(self, ward: tuple[Site, str], field: str, value: str) -> None:
        site, _ = ward
        form = {"files": {"scan": b"scan"}, "data": {"model": "tiny", field: value}}
        answer = site.ask("other", "POST", "/segment", **form)
        assert (answer.status_code, answer.json()["code"]) == (422, "unexpected_field")

    def test_nor_from_the_address_or_the_head(self, ward: tuple[Site, str]) -> None:
        site, _ = ward
        answer = site.ask(
            "other",
            "POST",
            "/segment?destinations=archive&url=http://127.0.0.1:1/",
            files={"scan": b"scan"},
            data={"model": "tiny"},
            headers={"X-Destination": "archive", "Origin": "http://127.0.0.1:1", "Referer": "http://127.0.0.1:1"},
        )
        assert answer.status_code == 202
        job = site.ask("other", "GET", f"/jobs/{answer.json()['id']}").json()
        assert (job["destinations"], job["deliveries"]) == ([], [])

    @pytest.mark.parametrize("model", ["http://127.0.0.1:1/model", "file:///etc/passwd", "//evil.example/x", "tiny\0"])
    def test_a_model_is_a_name_and_no_address(self, ward: tuple[Site, str], model: str) -> None:
        site, _ = ward
        answer = site.ask("other", "POST", "/segment", files={"scan": b"x"}, data={"model": model})
        assert answer.json()["code"] in ("model_not_found", "invalid_parameter")
