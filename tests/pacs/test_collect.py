"""Series on their way in: what is kept, when a job comes of it, and of what none does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage, SegmentationStorage
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from imaging.errors import UnknownFormatError
from jobs.state import JobState, SeriesState
from pacs.collect import KEPT_S, LEASE_S
from pacs.files import Stored
from pacs.retention import purge

Slices = Callable[..., list[Path]]


def contents(files: list[Path]) -> list[bytes]:
    return sorted(one.read_bytes() for one in files)


class TestReceive:
    def test_an_instance_is_kept_as_it_came_and_acknowledged(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in")
        receipts = desk.receive(files)
        assert [one.stored for one in receipts] == [Stored.NEW] * 3
        assert [one.identity.instance for one in receipts] == [dcmread(one).SOPInstanceUID for one in files]
        assert contents(desk.kept()) == contents(files)
        assert (desk.row.state, desk.row.sender) == (SeriesState.COLLECTING, "PACS")

    def test_the_same_again_is_acknowledged_and_kept_once(self, desk: Any, make_slices: Slices, tmp_path: Path) -> None:
        files = make_slices(tmp_path / "in")
        desk.receive(files)
        assert [one.stored for one in desk.receive(files)] == [Stored.SAME] * 3
        assert len(desk.kept()) == 3

    def test_another_content_under_an_identifier_that_is_taken_is_not_kept(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in", 1)
        desk.receive(files)
        (receipt,) = desk.receive(make_slices(tmp_path / "other", 1, PatientID="P2"))
        assert receipt.stored is Stored.OTHER
        assert contents(desk.kept()) == contents(files)

    def test_what_is_no_dicom_is_refused_and_the_others_are_kept(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        text = tmp_path / "text"
        text.write_text("no DICOM, whatever its name says")
        first, second = desk.receive([text, *make_slices(tmp_path / "in", 1)])
        assert (type(first.error), first.stored, second.stored) == (UnknownFormatError, None, Stored.NEW)
        assert len(desk.kept()) == 1

    def test_of_another_study_or_instance_than_was_named_nothing_is_kept(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in", 1)
        for named in ({"study": "1.2.3"}, {"instance": "1.2.3"}):
            (receipt,) = desk.collection.receive(files, sender="PACS", **named)
            assert receipt.identity is not None
            assert receipt.stored is None
        assert (desk.rows, desk.kept()) == ([], [])

    def test_two_senders_of_one_series_are_apart(self, desk: Any, make_slices: Slices, tmp_path: Path) -> None:
        files = make_slices(tmp_path / "in", 2)
        desk.receive(files[:1], sender="ONE")
        desk.receive(make_slices(tmp_path / "other", 1, PatientID="P2"), sender="TWO")
        assert sorted(one.sender for one in desk.rows) == ["ONE", "TWO"]
        assert len(desk.complete()) == 2

    def test_what_was_kept_before_the_disk_was_full_is_no_orphan(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        missing = [*make_slices(tmp_path / "in", 2), tmp_path / "gone"]
        collection, staged = desk.collection, missing[:2]

        class Full(type(collection.files)):  # type: ignore[misc]
            def add(self, series: str, instance: str, file: Path) -> Stored:
                if file is staged[1]:
                    raise OSError(28, "No space left on device")
                stored: Stored = super().add(series, instance, file)
                return stored

        full = type(collection)(**{**vars(collection), "files": Full(desk.settings.blobs)})
        with pytest.raises(OSError, match="No space"):
            full.receive(staged, sender="PACS")
        assert len(desk.kept()) == 1
        assert desk.state is SeriesState.COLLECTING


class TestCompletion:
    def test_a_series_becomes_one_job_when_nothing_came_for_the_quiet_period(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in")
        for one in files:
            desk.receive([one])
            desk.clock.now += 9.0
            assert desk.collection.submit_complete(desk.sent.append) == 0
        (job_id,) = desk.complete()
        job = desk.jobs.get(job_id)
        assert (job.state, job.request.model, job.request.destinations) == (JobState.QUEUED, "tiny", ("archive",))
        assert contents(desk.blobs.input_files(job_id)) == contents(files)
        assert (desk.row.state, desk.row.job_id, desk.row.route) == (SeriesState.SUBMITTED, job_id, "heads")
        assert desk.scratch() == []

    def test_once_it_is_settled_it_is_not_looked_at_again(self, desk: Any, make_slices: Slices, tmp_path: Path) -> None:
        desk.receive(make_slices(tmp_path / "in"))
        desk.complete()
        assert (desk.complete(), desk.jobs_made()) == ([], 1)

    def test_the_same_series_sent_again_makes_no_second_job(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in")
        desk.receive(files)
        (job_id,) = desk.complete()
        desk.receive([*reversed(files)])
        assert (desk.complete(), desk.jobs_made()) == ([], 1)
        assert (desk.row.state, desk.row.job_id) == (SeriesState.SUBMITTED, job_id)

    def test_late_instances_make_a_second_job_of_all_of_them(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in", 4)
        desk.receive(files[:3])
        (first,) = desk.complete()
        desk.receive(files[3:])
        assert desk.row.job_id == first
        (second,) = desk.complete()
        assert second != first
        assert contents(desk.blobs.input_files(second)) == contents(files)
        assert len(desk.blobs.input_files(first)) == 3

    def test_a_series_that_the_sender_is_done_with_is_due_at_once(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        desk.receive(make_slices(tmp_path / "in"))
        desk.collection.series.released([desk.row.id])
        assert desk.collection.submit_complete(desk.sent.append) == 1
        assert desk.state is SeriesState.SUBMITTED

    def test_what_comes_between_claim_and_settling_makes_it_due_again(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in", 2)
        series = desk.collection.series
        desk.receive(files[:1])
        desk.clock.now += 11.0
        claimed = series.claim(LEASE_S)
        desk.receive(files[1:])
        assert not series.settle(claimed, SeriesState.SUBMITTED, route="heads", job_id="0" * 32)
        (job_id,) = desk.complete()
        assert contents(desk.blobs.input_files(job_id)) == contents(files)

    def test_a_process_holds_only_the_series_that_it_is_at(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        for number in range(3):
            desk.receive(make_slices(tmp_path / str(number), 1, uid=f"1.2.{number}"))
        other, taken = desk.another(), []
        desk.clock.now += 11.0

        def send(job_id: str) -> None:
            taken.append([*iter(lambda: other.series.claim(LEASE_S), None)])

        desk.collection.submit_complete(send)
        assert [len(one) for one in taken] == [2]


class TestUnwanted:
    def test_what_no_route_wants_is_erased_and_listed(self, desk: Any, make_slices: Slices, tmp_path: Path) -> None:
        desk.receive(make_slices(tmp_path / "in", Modality="US"))
        assert desk.complete() == []
        assert (desk.row.state, desk.row.route, desk.row.job_id) == (SeriesState.UNROUTED, None, None)
        assert desk.kept() == []

    def test_a_route_to_a_missing_model_is_refused_and_nothing_is_lost(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in", Modality="CT")
        desk.receive(files)
        assert desk.complete() == []
        assert (desk.row.state, desk.row.route) == (SeriesState.REFUSED, "nowhere")
        assert desk.row.detail.startswith("model_not_found: ")
        assert contents(desk.kept()) == contents(files)

    def test_once_the_model_is_there_the_series_sent_again_becomes_a_job(
        self, desk: Any, make_slices: Slices, tmp_path: Path, publish_tiny: Callable[..., object]
    ) -> None:
        files = make_slices(tmp_path / "in", Modality="CT")
        desk.receive(files)
        desk.complete()
        publish_tiny(desk.settings.models, name="missing")
        desk.receive(files[:1])
        (job_id,) = desk.complete()
        assert len(desk.blobs.input_files(job_id)) == 3
        assert (desk.row.state, desk.row.detail) == (SeriesState.SUBMITTED, None)

    @pytest.mark.parametrize(("modality", "kind"), [("SEG", SegmentationStorage), ("SR", ComprehensiveSRStorage)])
    def test_results_that_come_back_match_no_route(
        self, desk: Any, make_slices: Slices, tmp_path: Path, modality: str, kind: str
    ) -> None:
        route = desk.collection.config.route[0].model_copy(update={"modality": ".*"})
        config = desk.collection.config.model_copy(update={"route": (route,)})
        desk.collection = desk.another(config)
        desk.receive(make_slices(tmp_path / "in", 1, Modality=modality, SOPClassUID=kind))
        assert desk.complete() == []
        assert (desk.state, desk.kept()) == (SeriesState.UNROUTED, [])


class TestManyHands:
    def test_processes_that_submit_at_once_make_one_job(self, desk: Any, make_slices: Slices, tmp_path: Path) -> None:
        for number in range(6):
            desk.receive(make_slices(tmp_path / str(number), 2, uid=f"1.2.{number}"))
        desk.clock.now += 11.0
        hands, gate = [desk.another() for _ in range(4)], Barrier(4)

        def submit(collection: Any) -> None:
            gate.wait()
            collection.submit_complete(desk.sent.append)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(submit, hands))
        assert len(desk.sent) == len(set(desk.sent)) == desk.jobs_made() == 6
        assert all(len(desk.blobs.input_files(one)) == 2 for one in desk.sent)

    def test_one_that_is_slower_than_its_lease_loses_neither_its_job_nor_the_files(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        desk.receive(make_slices(tmp_path / "in"))
        other = desk.another()

        looked = []

        def once_it_has_seen_that_there_is_no_job(*_: object) -> None:
            desk.clock.now += LEASE_S + 1.0
            looked.append(other.submit_complete(desk.sent.append))

        slow = _once("SELECT jobs.", once_it_has_seen_that_there_is_no_job)
        event.listen(desk.jobs.engine, "after_cursor_execute", slow)
        desk.clock.now += 11.0
        desk.collection.submit_complete(desk.sent.append)
        assert looked == [1]
        desk.clock.now += LEASE_S + 1.0
        desk.collection.submit_complete(desk.sent.append)
        (job_id,) = desk.sent
        assert len(desk.blobs.input_files(job_id)) == 3
        assert (desk.row.state, desk.row.job_id) == (SeriesState.SUBMITTED, job_id)

    def test_what_is_sent_while_a_series_is_erased_is_kept(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in")
        desk.receive(files)
        desk.complete()
        with ThreadPoolExecutor(1) as pool:
            other = desk.another()
            again = []

            def erase(identifier: str) -> None:
                again.append(pool.submit(other.receive, files, sender="PACS"))
                desk.collection.files.erase(identifier)

            assert desk.collection.series.forget(desk.row.id, erase)
            assert [one.stored for one in again[0].result()] == [Stored.NEW] * 3
        assert contents(desk.kept()) == contents(files)
        assert desk.state is SeriesState.COLLECTING


def _once(start: str, act: Callable[..., None]) -> Callable[..., None]:
    """Acts at the first statement that begins so."""
    done: list[bool] = []

    def before(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith(start) and not done:
            done.append(True)
            act()

    return before


class TestCrash:
    def test_before_the_row_is_tried_again_after_the_lease(
        self, desk: Any, make_slices: Slices, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        desk.receive(make_slices(tmp_path / "in"))

        def break_down(*_: object) -> None:
            raise OperationalError("INSERT", {}, Exception("disk I/O error"))

        event.listen(desk.jobs.engine, "before_cursor_execute", _once("INSERT INTO jobs", break_down))
        assert (desk.complete(), desk.jobs_made()) == ([], 0)
        assert "it is tried again" in caplog.text
        assert desk.complete() == []  # the lease has not run out
        desk.clock.now += LEASE_S
        (job_id,) = desk.complete()
        assert len(desk.blobs.input_files(job_id)) == 3
        assert [one.name for one in (desk.settings.blobs / "jobs").iterdir()] == [job_id]

    def test_between_row_and_settling_ends_with_the_same_job(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        desk.receive(make_slices(tmp_path / "in"))

        def break_down(*_: object) -> None:
            raise OperationalError("UPDATE", {}, Exception("disk I/O error"))

        engine = desk.collection.series._engine
        event.listen(engine, "before_cursor_execute", _once("UPDATE series SET state", break_down))
        desk.complete()
        (job,) = desk.jobs.list()
        desk.clock.now += LEASE_S
        desk.complete()
        assert [one.id for one in desk.jobs.list()] == [job.id]
        assert (desk.row.state, desk.row.job_id) == (SeriesState.SUBMITTED, job.id)
        assert len(desk.blobs.input_files(job.id)) == 3
        assert desk.jobs.queued() == 1

    def test_in_waking_leaves_the_job_queued_and_the_others_go_on(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        for number in range(2):
            desk.receive(make_slices(tmp_path / str(number), 1, uid=f"1.2.{number}"))

        def send(job_id: str) -> None:
            raise RuntimeError("no broker")

        desk.clock.now += 11.0
        desk.collection.submit_complete(send)
        assert desk.jobs.queued() == 2
        assert [one.state for one in desk.rows] == [SeriesState.SUBMITTED] * 2

    def test_what_an_earlier_crash_left_of_the_job_is_no_hindrance(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in")
        desk.receive(files)
        (job_id,) = desk.complete()
        job = desk.jobs.claim(job_id, 60.0)
        desk.jobs.fail(job_id, job.attempt, "x", "y")
        desk.jobs.erase(job_id)  # and then the power went: files and series are still there
        desk.receive(files)
        assert desk.complete() == [job_id]
        assert len(desk.blobs.input_files(job_id)) == 3


class TestErasing:
    def test_a_job_erases_its_series(self, desk: Any, make_slices: Slices, tmp_path: Path) -> None:
        desk.receive(make_slices(tmp_path / "in"))
        desk.receive(make_slices(tmp_path / "other", uid="1.2.3"))
        first, second = desk.complete()
        desk.jobs.request_cancel(first)
        assert desk.collection.erase(first)
        assert [one.job_id for one in desk.rows] == [second]
        assert len(desk.kept()) == 3
        assert [one.name for one in (desk.settings.blobs / "jobs").iterdir()] == [second]

    def test_a_job_whose_time_is_over_erases_its_series(self, desk: Any, make_slices: Slices, tmp_path: Path) -> None:
        desk.receive(make_slices(tmp_path / "in"))
        (job_id,) = desk.complete()
        desk.jobs.request_cancel(job_id)
        assert purge(desk.collection, keep_days=None) == 0
        assert purge(desk.collection, keep_days=0) == 1
        assert (desk.rows, desk.kept(), desk.jobs_made()) == ([], [], 0)
        assert list((desk.settings.blobs / "jobs").iterdir()) == []

    def test_a_series_that_came_again_stays(self, desk: Any, make_slices: Slices, tmp_path: Path) -> None:
        files = make_slices(tmp_path / "in", 4)
        desk.receive(files[:3])
        (job_id,) = desk.complete()
        desk.receive(files[3:])
        desk.jobs.request_cancel(job_id)
        assert desk.collection.erase(job_id)
        assert len(desk.kept()) == 4
        assert desk.state is SeriesState.COLLECTING

    def test_sweeping_erases_old_settled_series_and_leaves_the_others(
        self, desk: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        desk.receive(make_slices(tmp_path / "old"))
        (job_id,) = desk.complete()
        desk.receive(make_slices(tmp_path / "waiting", 2, uid="1.2.3"))
        desk.clock.now += KEPT_S - 100.0
        desk.receive(make_slices(tmp_path / "young", 1, uid="1.2.4"))
        desk.collection.series.settle(_of(desk, "1.2.4.2"), SeriesState.SUBMITTED, route=None)
        desk.clock.now += 200.0
        desk.collection.sweep()
        assert sorted(one.series_uid for one in desk.rows) == ["1.2.3.2", "1.2.4.2"]
        assert len(desk.kept()) == 3
        assert len(desk.blobs.input_files(job_id)) == 3

    def test_names_of_files_say_nothing_of_the_patient(self, desk: Any, make_slices: Slices, tmp_path: Path) -> None:
        desk.receive(make_slices(tmp_path / "in", 1))
        (file,) = desk.kept()
        assert file.name == hashlib.sha256(b"1.2.826.0.1.5.2.1").hexdigest()[:40]


def _of(desk: Any, series_uid: str) -> Any:
    return next(one for one in desk.rows if one.series_uid == series_uid)
