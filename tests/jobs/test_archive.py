"""Objects and deliveries as rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.archive import PAGE_MAX, ObjectRepository
from jobs.repository import JobRepository


class TestGroups:
    def test_every_page_is_reached_however_many_objects_there_are(
        self, repository: JobRepository, submit: Callable[[], str]
    ) -> None:
        job_id = submit()
        job = repository.claim(job_id, 60.0)
        assert job is not None
        rows: list[dict[str, Any]] = [
            {
                "sop_instance_uid": f"1.2.{number}",
                "study_uid": f"1.1.{number // 2}",
                "series_uid": f"1.3.{number}",
                "sop_class_uid": "1.2.840.10008.5.1.4.1.1.66.4",
                "modality": "SEG" if number % 2 else "SR",
                "file": f"{number}.dcm",
            }
            for number in range(2 * PAGE_MAX + 20)
        ]
        assert repository.succeed(job_id, job.attempt, {"verdict": "accept"}, objects=rows)
        objects = ObjectRepository(repository.engine)
        first = objects.groups(["study_uid"], {})
        rest = objects.groups(["study_uid"], {}, offset=PAGE_MAX)
        assert (len(first), len(rest)) == (PAGE_MAX, 10)
        assert {one for (one,) in [*first, *rest]} == {one["study_uid"] for one in rows}
        assert objects.groups(["modality"], {"study_uid": ["1.1.0", "1.1.1"]}) == [("SEG",), ("SR",)]
