"""Real databases: a SQLite file, and a schema of its own on a local PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Engine

from jobs.database import open_database, upgrade
from jobs.models import JobRequest
from jobs.repository import JobRepository

POSTGRES = os.environ.get("NCAGATE_TEST_POSTGRES", "postgresql://localhost:5432/test")


class Clock:
    """Time that moves when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def _postgres() -> psycopg.Connection[tuple[object, ...]]:
    try:
        return psycopg.connect(POSTGRES, autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no PostgreSQL at {POSTGRES}: {str(error).splitlines()[0]}")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'data' / 'jobs.db'}"
        return
    schema = f"test_{uuid4().hex}"
    with _postgres() as server:
        server.execute(f"CREATE SCHEMA {schema}")
        yield f"{POSTGRES}?options=-csearch_path%3D{schema}"
        server.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """A database with our tables."""
    engine = open_database(database_url)
    upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(engine: Engine, clock: Clock) -> JobRepository:
    return JobRepository(engine, clock=clock)


@pytest.fixture
def wanted() -> JobRequest:
    return JobRequest(model="hippocampus", version="1.0.0", min_dice=0.8, alpha=0.1, rule="nqm", members=10, seed=0)


@pytest.fixture
def submit(repository: JobRepository, clock: Clock, wanted: JobRequest) -> Callable[[], str]:
    """Creates a queued job, one second after the one before; its identifier."""

    def create() -> str:
        clock.now += 1.0
        return repository.create(uuid4().hex, wanted).id

    return create
