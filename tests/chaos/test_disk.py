"""A data folder without a free byte, database and all."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.chaos.disk import fill, free
from tests.chaos.rig import Rig
from tests.chaos.stage import Stage

FULL_S = 1.0
"""Long enough for a job to fail at it."""


@pytest.fixture
def rig(stage: Stage) -> Iterator[Rig]:
    with stage.rig(full=True) as running:
        yield running


class TestFull:
    def test_an_upload_is_refused_and_the_next_one_taken(self, rig: Rig) -> None:
        rig.note("disk full during an upload")
        fill(rig.data)
        answer = rig.client.post()
        assert answer is not None
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
        free(rig.data)
        rig.settle()

    @pytest.mark.parametrize("point", ["delivered", "claimed", "write", "committed"])
    def test_a_job_under_way_ends_once_there_is_room(self, rig: Rig, point: str) -> None:
        with rig.held(point) as held:
            rig.note(f"disk full, a job {point}")
            fill(rig.data)
        time.sleep(FULL_S)
        free(rig.data)
        assert rig.client.finished(held.job_id)["state"] == "succeeded"
        rig.settle()
