"""The Python client against a real gateway; the test does the worker's work."""

from __future__ import annotations

import socket
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from jobs.models import Job as Row
from ncagate.client import (
    AccessError,
    JobCancelledError,
    JobFailedError,
    NoAnswerError,
    NotFinishedError,
    NotFoundError,
    NotUnderstoodError,
    Part,
    RejectedError,
    ScanError,
    SetupError,
    UnavailableError,
    WaitTimeoutError,
)
from ncagate.client.flows import Flows
from tests.service.conftest import Service, Site


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Doe^Jane.nii.gz"
    path.write_bytes(b"scan" * 1000)
    return path


def later(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def newest(service: Service) -> str:
    """The newest job, as soon as there is one."""
    deadline = time.monotonic() + 20
    while not (jobs := service.gateway.repository.list(limit=1)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return jobs[0].id


class TestSegment:
    def test_a_scan_is_sent_and_its_result_comes_back(self, talker: Any, service: Service, file: Path) -> None:
        worker = later(lambda: service.finish(newest(service)))
        result = talker.segment(file, model="tiny", seed=3, roi="voxel:0,0,0:9,9,9", priority="urgent")
        worker.join()
        assert (result.verdict, result.accepted, result.reasons[0].code) == ("flag", False, "nqm_above_threshold")
        assert (result.nqm, result.predicted_dice, result.dice_interval) == (0.3, 0.66, (0.41, 0.83))
        assert (result.volume_ml, result.model, result.version) == (3.25, "tiny", "1.0.0")
        assert (result.job.roi, result.job.priority) == ("voxel:0,0,0:9,9,9", "urgent")
        assert result.job.finished is not None
        assert result.job.finished.tzinfo is not None

    def test_without_waiting_the_job_is_what_one_gets(self, talker: Any, service: Service, file: Path) -> None:
        job = talker.segment(file, model="tiny", wait=False)
        assert (job.state, job.ended, job.position, job.verdict) == ("queued", False, 0, None)
        assert talker.job(job.id).id == job.id
        service.finish(job.id)
        assert talker.result(job.id).verdict == "flag"

    def test_the_bytes_are_those_of_the_file_and_its_name_stays_here(
        self, talker: Any, service: Service, file: Path
    ) -> None:
        job = talker.segment(file, model="tiny", wait=False)
        (sent,) = (one for one in (service.blobs / "jobs" / job.id).rglob("*") if one.is_file())
        assert sent.read_bytes() == file.read_bytes()

    @pytest.mark.parametrize("shape", ["folder", "list", "text"])
    def test_a_series_is_a_folder_or_its_files(
        self, talker: Any, service: Service, make_slices: Callable[..., list[Path]], tmp_path: Path, shape: str
    ) -> None:
        files = make_slices(tmp_path / "series" / "deeper")
        (tmp_path / "series" / ".DS_Store").write_bytes(b"x")
        source: Any = {"folder": tmp_path / "series", "list": files, "text": str(tmp_path / "series")}[shape]
        job = talker.segment(source, model="tiny", wait=False)
        sent = sorted(one for one in (service.blobs / "jobs" / job.id).rglob("*") if one.is_file())
        assert [one.read_bytes() for one in sent] == [one.read_bytes() for one in files]

    def test_a_zip_is_a_scan(self, talker: Any, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
            archive.writestr("a.dcm", b"x")
        assert talker.segment(tmp_path / "scan.zip", model="tiny", wait=False).state == "queued"

    def test_progress_counts_every_byte_of_the_scan(self, talker: Any, tmp_path: Path) -> None:
        file = tmp_path / "scan.nii"
        file.write_bytes(bytes(150_000))
        told: list[tuple[int, int]] = []
        talker.segment(file, model="tiny", wait=False, progress=lambda sent, total: told.append((sent, total)))
        assert told[0] == (65536, 150_000)
        assert told[-1] == (150_000, 150_000)

    def test_what_is_not_there_is_no_scan(self, talker: Any, service: Service, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        sources: list[Any] = [tmp_path / "absent.nii", tmp_path / "empty", []]
        for source in sources:
            with pytest.raises(ScanError):
                talker.segment(source, model="tiny")
        assert service.gateway.repository.list() == []

    def test_a_file_that_changes_while_it_is_sent_is_told(self, talker: Any, service: Service, tmp_path: Path) -> None:
        file = tmp_path / "scan.nii"
        for size in (20_000, 180_000):  # shorter and longer than it was
            file.write_bytes(bytes(150_000))
            with pytest.raises(ScanError, match="changed"):
                talker.segment(file, model="tiny", progress=lambda sent, total: file.write_bytes(bytes(size)))  # noqa: B023
        assert service.until_clean()
        assert service.gateway.repository.list() == []

    def test_a_job_that_failed_says_why(self, talker: Any, service: Service, file: Path) -> None:
        worker = later(lambda: service.fail(newest(service)))
        with pytest.raises(JobFailedError) as caught:
            talker.segment(file, model="tiny")
        worker.join()
        assert (caught.value.code, caught.value.job) == ("gzip_truncated", newest(service))
        assert str(caught.value) == "the gzip stream ends early"

    def test_the_time_may_be_over_and_the_job_goes_on(self, talker: Any, file: Path) -> None:
        with pytest.raises(WaitTimeoutError) as caught:
            talker.segment(file, model="tiny", timeout=0.6)
        assert isinstance(caught.value, TimeoutError)
        assert talker.job(caught.value.job).state == "queued"


class TestFiles:
    @pytest.fixture
    def result(self, talker: Any, service: Service, file: Path) -> Any:
        job = talker.segment(file, model="tiny", wait=False).id
        service.finish(job, "segmentation.dcm")
        return talker.result(job)

    def test_go_into_a_folder_by_the_jobs_name_or_another(self, result: Any, tmp_path: Path) -> None:
        assert result.save(tmp_path).name == f"{result.job.id}_mask.nii.gz"
        assert result.save(tmp_path, Part.PREVIEW, name="case 1") == tmp_path / "case 1_preview.png"
        assert result.save(f"{tmp_path}/new/").read_bytes() == b"mask.nii.gz"

    def test_go_where_one_says(self, result: Any, tmp_path: Path) -> None:
        target = tmp_path / "new" / "left.nii.gz"
        for _ in range(2):
            assert result.save(target) == target
            assert target.read_bytes() == b"mask.nii.gz"
        assert [one.name for one in target.parent.iterdir()] == ["left.nii.gz"]
        for name in ("left.nii", "left.png", "left"):
            with pytest.raises(ValueError, match="neither a folder"):
                result.save(tmp_path / name)

    def test_all_of_them_are_those_there_are(self, result: Any, tmp_path: Path) -> None:
        saved = result.save_all(tmp_path / "out", name="a")
        assert [one.name for one in saved] == [
            "a_mask.nii.gz", "a_uncertainty.nii.gz", "a_preview.png", "a_segmentation.dcm"
        ]  # fmt: skip

    def test_come_as_bytes_and_as_a_report(self, result: Any) -> None:
        assert result.preview() == b"preview.png"
        assert result.read(Part.SEGMENTATION) == b"segmentation.dcm"
        assert result.report()["verdict"] == "flag"

    def test_that_are_gone_are_not_found_and_leave_nothing(self, result: Any, service: Service, tmp_path: Path) -> None:
        for one in (service.blobs / "jobs" / result.job.id).rglob("mask.nii.gz"):
            one.unlink()
        kept = tmp_path / "mask.nii.gz"
        kept.write_bytes(b"an older one")
        with pytest.raises(NotFoundError) as caught:
            result.save(kept)
        assert caught.value.code == "result_gone"
        assert kept.read_bytes() == b"an older one"
        assert [one.name for one in tmp_path.iterdir() if "mask" in one.name] == ["mask.nii.gz"]


class TestJobs:
    def test_all_pages_are_listed(self, talker: Any, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ncagate.client.flows.PAGE", 2)
        ids = [service.submit() for _ in range(5)]
        service.finish(ids[0])
        assert [job.id for job in talker.jobs()] == ids[::-1]
        assert [job.id for job in talker.jobs(state="succeeded")] == ids[:1]

    def test_are_watched_to_their_end(self, talker: Any, service: Service) -> None:
        job = service.submit()
        states = []
        for one in talker.watch(job):
            states.append(one.state)
            if one.state == "queued":
                service.finish(job)
        assert states[0] == "queued"
        assert states[-1] == "succeeded"

    def test_are_cancelled_and_not_erased(self, talker: Any, service: Service) -> None:
        job = service.submit()
        assert talker.cancel(job).state == "cancelled"
        assert talker.cancel(job).state == "cancelled"
        assert service.gateway.repository.get(job) is not None
        with pytest.raises(JobCancelledError):
            talker.result(job)

    def test_are_erased_even_where_they_are_queued(self, talker: Any, service: Service) -> None:
        jobs = service.submit(), service.submit()
        service.finish(jobs[0])
        for job in jobs:
            talker.erase(job)
            assert service.gateway.repository.get(job) is None
            with pytest.raises(NotFoundError):
                talker.job(job)
            with pytest.raises(NotFoundError):
                talker.erase(job)

    def test_of_strange_names_are_not_found(self, talker: Any) -> None:
        for name in ("../models", "a/b", "x?y=1", "é"):
            with pytest.raises(NotFoundError):
                talker.job(name)

    def test_that_vanish_while_they_are_watched_are_not_found(self, talker: Any, service: Service) -> None:
        job = service.submit()
        watched = talker.watch(job)
        assert next(watched).state == "queued"
        with service.gateway.repository.engine.begin() as connection:
            connection.execute(delete(Row).where(Row.id == job))
        with pytest.raises(NotFoundError):
            next(watched)


class TestModels:
    def test_are_listed_with_versions_and_aliases(self, talker: Any) -> None:
        (tiny,) = (one for one in talker.models() if one.name == "tiny")
        assert {one.version for one in tiny.versions} == {"1.0.0", "1.1.0"}
        assert all(one.usable and one.created for one in tiny.versions)
        assert (tiny.aliases, talker.model("tiny")) == ({"production": "1.0.0"}, tiny)
        assert talker.manifest("tiny", "1.0.0")["parameters"] > 0


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "kind", "code"),
        [
            ({"model": "brain"}, RejectedError, "model_not_found"),
            ({"model": "tiny", "version": "9"}, RejectedError, "version_not_found"),
            ({"model": "tiny", "members": 5000}, RejectedError, "invalid_parameter"),
            ({"model": "tiny", "webhook": "https://x.example/"}, RejectedError, "webhook_refused"),
        ],
    )
    def test_of_a_scan_are_told_by_their_code(
        self, talker: Any, file: Path, options: dict[str, Any], kind: type[RejectedError], code: str
    ) -> None:
        kind = NotFoundError if code.endswith("not_found") else kind  # type: ignore[assignment]
        with pytest.raises(kind) as caught:
            talker.segment(file, **options)
        assert caught.value.code == code

    def test_a_scan_that_is_too_large_is_refused(self, talker: Any, tmp_path: Path) -> None:
        # no more than a gateway reads away after its answer: a reset may reach a sender before the answer does
        (tmp_path / "scan.nii").write_bytes(bytes(240_000))
        with pytest.raises(RejectedError) as caught:
            talker.segment(tmp_path / "scan.nii", model="tiny")
        assert caught.value.status == 413

    def test_a_key_is_needed_and_taken_from_the_environment(
        self, talk: Callable[..., Any], site: Site, monkeypatch: pytest.MonkeyPatch, file: Path
    ) -> None:
        url = f"http://127.0.0.1:{site.service.port}"
        for key, code in ((None, "unauthenticated"), ("ncg_nobody", "unauthenticated")):
            with pytest.raises(AccessError) as caught:
                talk(url, key=key).models()
            assert caught.value.code == code
        with pytest.raises(AccessError) as caught:
            talk(url, key=site.texts["reader"]).segment(file, model="tiny")
        assert caught.value.code == "forbidden"
        mine = talk(url, key=site.texts["ward"]).segment(file, model="tiny", wait=False)
        monkeypatch.setenv("NCAGATE_URL", url)
        monkeypatch.setenv("NCAGATE_KEY", site.texts["ward"])
        assert [one.id for one in talk(None).jobs()] == [mine.id]
        with pytest.raises(NotFoundError):
            talk(None, key=site.texts["other"]).job(mine.id)

    def test_a_result_that_is_not_there_yet(self, talker: Any, service: Service) -> None:
        with pytest.raises(NotFinishedError):
            talker._run(talker._flows.report(service.submit()))

    @pytest.mark.parametrize(
        "options",
        [
            {"url": "127.0.0.1:8000"},
            {"url": "ftp://host/"},
            {"url": "http://"},
            {"url": "http://[::1"},
            {"key": "ncg_\nsecret"},
            {"key": "ncg_schlüssel"},
            {"verify": __file__},
            {"verify": "/nowhere/ca.pem"},
        ],
    )
    def test_what_is_no_address_key_or_certificate(self, talk: Callable[..., Any], options: dict[str, Any]) -> None:
        with pytest.raises(SetupError) as caught:
            talk(**({"url": "https://localhost"} | options))
        assert "secret" not in str(caught.value)

    def test_nobody_at_the_address(self, talk: Callable[..., Any], unused_port: int) -> None:
        with pytest.raises(NoAnswerError):
            talk(f"http://127.0.0.1:{unused_port}", patience=0.3).models()

    def test_somebody_else_at_the_address(self, talk: Callable[..., Any], service: Service) -> None:
        with pytest.raises(NotFoundError):
            talk(f"http://127.0.0.1:{service.port}/elsewhere").models()
        with pytest.raises(NotUnderstoodError):
            talk(f"http://127.0.0.1:{service.port}")._run(Flows(1.0)._get("/metrics"))

    def test_where_the_queue_is_full_patience_decides(
        self, talk: Callable[..., Any], serve: Callable[..., Service], broker: Any, file: Path
    ) -> None:
        full = serve(redis_url=broker.url, queue_max=1)
        full.submit()
        with pytest.raises(UnavailableError) as caught:
            talk(f"http://127.0.0.1:{full.port}", patience=1).segment(file, model="tiny")
        assert (caught.value.code, caught.value.status, caught.value.retry_after) == ("queue_full", 503, 10)

    def test_who_asks_too_often_is_slowed_down_and_not_refused(
        self, talk: Callable[..., Any], serve: Callable[..., Service], broker: Any
    ) -> None:
        strict = serve(redis_url=broker.url, client_rate_max=2.0)
        client = talk(f"http://127.0.0.1:{strict.port}")
        for _ in range(6):  # a burst of four, and one more
            client.models()
        assert strict.client.get("/livez").status_code == 200


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
