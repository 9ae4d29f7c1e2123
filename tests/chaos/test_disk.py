"""A data folder without a free byte, database and all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.chaos.disk import fill, free, small_disk
from tests.chaos.rig import Layout, Rig


@pytest.fixture(scope="module")
def shared(
    start: Callable[..., AbstractContextManager[Rig]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    with (
        small_disk(tmp_path_factory.mktemp("disk")) as data,
        start(Layout(gateways=1, workers=2), data=data) as running,
    ):
        yield running


@pytest.fixture
def rig(shared: Rig) -> Iterator[Rig]:
    yield shared
    free(shared.data)
    shared.heal()


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
        time.sleep(1.5)
        free(rig.data)
        job = rig.client.finished(held.job_id)
        assert job["state"] == "succeeded"
        rig.settle()
