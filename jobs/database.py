"""Opening the database, SQLite or PostgreSQL, and bringing its tables up to date."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from sqlite3 import OperationalError as SqliteError
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text

from jobs.migrations import newest

BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for SQLite's single write lock, or for a connection."""
RETRY_S = 0.01
MIGRATION_LOCK = 0x6E636167
"""Key of the PostgreSQL advisory lock that lets one process at a time migrate."""
_WRITE = "ncagate_write"


def open_database(url: str) -> Engine:
    """An engine for a SQLAlchemy URL, ``sqlite:///PATH`` or ``postgresql://...``; connects on first use.

    SQLite runs in WAL mode with ``synchronous=FULL``, so that an accepted job survives a power cut. JSON
    columns refuse NaN and infinity, which are not JSON.
    """
    address = make_url(url)
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    engine = create_engine(
        address,
        connect_args=_connect_args(address),
        pool_pre_ping=address.get_backend_name() != "sqlite",  # a file does not go away
        json_serializer=partial(json.dumps, allow_nan=False),
    )
    if address.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, whose transactions take SQLite's write lock at once and so never fail to upgrade."""
    return engine.execution_options(**{_WRITE: True})


def upgrade(database: str | Engine) -> None:
    """Bring the tables up to date. Several processes may call it at once: one migrates, the others wait."""
    engine = open_database(database) if isinstance(database, str) else database
    if engine.url.get_backend_name() == "sqlite" and engine.url.database:
        Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
    try:
        if _revision(engine) != newest():
            _migrate(engine)
    finally:
        if engine is not database:
            engine.dispose()


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return revision


def _migrate(engine: Engine) -> None:
    from alembic import command  # late: it takes memory, and there is something to do once a release
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "jobs:migrations")
    with writing(engine).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _connect_args(address: URL) -> dict[str, Any]:
    if address.get_backend_name() == "sqlite":
        return {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    return {"connect_timeout": int(BUSY_TIMEOUT_S)}


def _prepare_sqlite(connection: SqliteConnection, record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, not at the driver's first INSERT
    _use_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _use_wal(connection: SqliteConnection) -> None:
    """Only the first connection ever changes the mode; of several at that moment SQLite lets none wait by itself."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except SqliteError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
