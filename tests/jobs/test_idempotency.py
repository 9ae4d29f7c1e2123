"""Named requests: one job under a name, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from jobs.audit import AuditLog
from jobs.clients import Client, Scope
from jobs.errors import IdempotencyError
from jobs.idempotency import Named, payload_digest
from jobs.models import JobRequest
from jobs.repository import JobRepository

WARD = Client("ward", frozenset({Scope.SUBMIT}), "key 1")
OTHER = Client("other", frozenset({Scope.SUBMIT}), "key 2")
ADMIN = Client("it", frozenset({Scope.ADMIN}), "key 3")
NAMED = Named("monday's scan", "d" * 64)


@pytest.fixture
def ward(repository: JobRepository) -> JobRepository:
    return repository.seen_by(WARD)


class TestName:
    def test_is_found_with_its_job_and_digest(self, ward: JobRepository, wanted: JobRequest) -> None:
        assert ward.named(NAMED.key) is None
        job = ward.create(uuid4().hex, wanted, named=NAMED)
        found = ward.named(NAMED.key)
        assert found is not None
        assert (found[0].id, found[1]) == (job.id, NAMED.digest)

    def test_names_one_job(self, ward: JobRepository, wanted: JobRequest) -> None:
        job = ward.create(uuid4().hex, wanted, named=NAMED)
        with pytest.raises(IdempotencyError):
            ward.create(uuid4().hex, wanted, named=NAMED)
        assert [one.id for one in ward.list()] == [job.id]
        assert len(AuditLog(ward.engine).list()) == 1

    def test_is_its_clients(self, repository: JobRepository, wanted: JobRequest) -> None:
        jobs = {one.name: repository.seen_by(one).create(uuid4().hex, wanted, named=NAMED) for one in (WARD, OTHER)}
        for one in (WARD, OTHER):
            found = repository.seen_by(one).named(NAMED.key)
            assert found is not None
            assert found[0].id == jobs[one.name].id
        assert repository.seen_by(ADMIN).named(NAMED.key) is None

    def test_is_free_once_its_job_is_erased(self, ward: JobRepository, wanted: JobRequest) -> None:
        first = ward.create(uuid4().hex, wanted, named=NAMED)
        ward.request_cancel(first.id)
        assert ward.named(NAMED.key) is not None
        assert ward.erase(first.id)
        assert ward.named(NAMED.key) is None
        ward.create(uuid4().hex, wanted, named=NAMED)

    def test_outlives_its_process(self, ward: JobRepository, wanted: JobRequest, engine: Engine) -> None:
        ward.create(uuid4().hex, wanted, named=NAMED)
        engine.dispose()
        assert JobRepository(engine, client=WARD).named(NAMED.key) is not None

    def test_of_many_at_once_one_makes_a_job(self, ward: JobRepository, wanted: JobRequest) -> None:
        gate = Barrier(8)

        def create(number: int) -> bool:
            gate.wait()
            try:
                ward.create(uuid4().hex, wanted, named=NAMED)
            except IdempotencyError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(create, range(8))).count(True) == 1
        assert len(ward.list()) == 1


class TestDigest:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Callable[..., Path]:
        def folder(*files: bytes) -> Path:
            made = tmp_path / uuid4().hex
            made.mkdir()
            for number, content in enumerate(files):
                (made / f"{number:04}").write_bytes(content)
            return made

        return folder

    def test_is_of_fields_and_files_whatever_their_order(self, folder: Callable[..., Path]) -> None:
        one, same = folder(b"a", b"b"), folder(b"a", b"b")
        first = payload_digest({"model": "tiny", "seed": "1"}, one)
        assert payload_digest({"seed": "1", "model": "tiny"}, same) == first

    def test_differs_where_anything_does(self, folder: Callable[..., Path]) -> None:
        fields = {"model": "tiny"}
        digests = {
            payload_digest(fields, folder(b"a", b"b")),
            payload_digest(fields, folder(b"b", b"a")),
            payload_digest(fields, folder(b"ab")),
            payload_digest(fields, folder(b"a", b"b", b"c")),
            payload_digest({"model": "tiny2"}, folder(b"a", b"b")),
            payload_digest({"model": "tiny", "seed": "0"}, folder(b"a", b"b")),
            payload_digest({"model": "tiny'\nseed='0"}, folder(b"a", b"b")),
        }
        assert len(digests) == 7
