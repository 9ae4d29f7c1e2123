"""What the database itself saw: every move of every job, written down by a trigger, whoever made it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields

from sqlalchemy import JSON, Engine, text

from jobs.database import open_database
from jobs.state import TERMINAL, JobState

FINAL = "'succeeded', 'failed', 'cancelled'"
SQLITE = (
    "CREATE TABLE chaos_moves (n INTEGER PRIMARY KEY, job_id TEXT, old TEXT, new TEXT, attempt INTEGER, at REAL)",
    f"""CREATE TRIGGER chaos_moved AFTER UPDATE ON jobs WHEN OLD.state <> NEW.state OR OLD.state IN ({FINAL})
    BEGIN
        INSERT INTO chaos_moves (job_id, old, new, attempt, at) VALUES
        (NEW.id, OLD.state, NEW.state, NEW.attempt, (julianday('now') - 2440587.5) * 86400.0);
    END""",
)
POSTGRESQL = (
    """CREATE TABLE chaos_moves
    (n BIGSERIAL PRIMARY KEY, job_id TEXT, old TEXT, new TEXT, attempt INTEGER, at DOUBLE PRECISION)""",
    """CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO chaos_moves (job_id, old, new, attempt, at) VALUES
        (NEW.id, OLD.state, NEW.state, NEW.attempt, extract(epoch FROM clock_timestamp()));
        RETURN NULL;
    END $$""",
    f"""CREATE TRIGGER chaos_moved AFTER UPDATE ON jobs FOR EACH ROW
    WHEN (OLD.state <> NEW.state OR OLD.state IN ({FINAL})) EXECUTE FUNCTION chaos_note()""",
)


@dataclass(frozen=True)
class Move:
    """A job changed its state, at that time by the database's own clock; or it was changed in its final state."""

    job_id: str
    old: str
    new: str
    attempt: int
    at: float


@dataclass
class Findings:
    """Identifiers of jobs with which something is wrong; none is as it should be."""

    lost: list[str] = field(default_factory=list)  # a client was told 202, and there is no row
    stuck: list[str] = field(default_factory=list)  # in no final state, long after the last fault
    done_twice: list[str] = field(default_factory=list)  # reached a final state more than once, or changed in it
    failed: list[str] = field(default_factory=list)  # by no fault of the scan
    given_up: list[str] = field(default_factory=list)  # cancelled, and nobody had asked for it
    replaced: list[str] = field(default_factory=list)  # the mask is not that of an undisturbed run
    miscounted: list[str] = field(default_factory=list)  # the totals on a metrics page are not those of the moves
    scratch: list[str] = field(default_factory=list)  # files that no sweep would remove

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))


class Ledger:
    """The moves in one database, whose tables are there."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = open_database(url)
        with self._engine.begin() as connection:
            for statement in SQLITE if self._engine.dialect.name == "sqlite" else POSTGRESQL:
                connection.exec_driver_sql(statement)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def moves(self) -> Sequence[Move]:
        """All of them, in order; those of jobs that were erased as well."""
        with self._engine.connect() as connection:
            rows = connection.execute(text("SELECT job_id, old, new, attempt, at FROM chaos_moves ORDER BY n"))
            return [Move(*row) for row in rows]

    def states(self) -> Mapping[str, JobState]:
        """Every job's state, by its row."""
        with self._engine.connect() as connection:
            rows = connection.execute(text("SELECT id, state FROM jobs"))
            return {row.id: JobState(row.state) for row in rows}

    def ended(self) -> list[str]:
        """Jobs in a final state."""
        return [job for job, state in self.states().items() if state in TERMINAL]

    def succeeded(self) -> dict[str, int]:
        """Jobs that have succeeded, with the seed that was asked for."""
        query = text("SELECT id, request FROM jobs WHERE state = 'succeeded'").columns(request=JSON)
        with self._engine.connect() as connection:
            return {row.id: int(row.request["seed"]) for row in connection.execute(query)}

    def pending(self) -> list[str]:
        """Jobs that have not ended, each with its state."""
        return [f"{job} {state}" for job, state in self.states().items() if state not in TERMINAL]

    def successes(self) -> list[float]:
        """When jobs succeeded, in order."""
        return sorted(move.at for move in self.moves() if move.new == JobState.SUCCEEDED)

    def totals(self) -> Counter[str]:
        """How many jobs have ever reached each final state."""
        return Counter(move.new for move in self.moves() if move.new in TERMINAL)

    def examine(self, accepted: Sequence[str], cancelled: Collection[str]) -> Findings:
        """What is wrong with the rows, if these jobs were accepted, and these cancelled.

        A cancel that comes after the end erases the job, and who asked for it may not have been told.
        """
        states, moves = self.states(), self.moves()
        ends = Counter(move.job_id for move in moves if move.new in TERMINAL)
        return Findings(
            lost=[job for job in accepted if job not in states and not (job in cancelled and ends[job])],
            done_twice=[job for job, times in ends.items() if times > 1],
            failed=[job for job, state in states.items() if state is JobState.FAILED],
            given_up=[job for job, state in states.items() if state is JobState.CANCELLED and job not in cancelled],
        )
