"""The states of a job and the moves between them; of what comes from archives, and of what goes back; decisions."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job stands; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
"""A job in one of these never changes again; it can only be erased."""

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
    JobState.RUNNING: TERMINAL | {JobState.QUEUED},  # back to queued when its worker fell silent
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""Every move the repository makes, and no other."""


class Priority(StrEnum):
    """Whose turn comes first, whoever the client."""

    ROUTINE = "routine"
    URGENT = "urgent"

    @property
    def rank(self) -> int:
        """Higher goes first."""
        return [Priority.ROUTINE, Priority.URGENT].index(self)


class SeriesState(StrEnum):
    """What became of a DICOM series that was sent here."""

    COLLECTING = "collecting"
    SUBMITTED = "submitted"
    UNROUTED = "unrouted"  # no route wants it
    REFUSED = "refused"  # a route wants it and no job could be made of it


class DeliveryState(StrEnum):
    """Where the delivery of a result stands; all but the first are final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    WITHHELD = "withheld"  # flagged, and this archive gets accepted masks only
    FAILED = "failed"


class Decision(StrEnum):
    """What a person makes of a mask; of several the last one that is no comment holds."""

    CONFIRM = "confirm"  # it may be used as it is, whatever the verdict
    REJECT = "reject"  # it may not
    COMMENT = "comment"  # neither
