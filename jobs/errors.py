"""What the jobs room refuses, or cannot do."""

from __future__ import annotations

from typing import ClassVar

ATTEMPTS_EXHAUSTED = "attempts_exhausted"
"""Failure code of a job whose workers died or fell silent once too often."""


INTERNAL_ERROR = "internal_error"
"""Failure code of work on which the program itself broke, in every attempt."""


class JobsError(Exception):
    """Base of this package's errors; ``code`` is stable and safe to show."""

    code: ClassVar[str] = "jobs_error"


class BrokerUnavailableError(JobsError):
    """The broker does not answer; the rows wait until it does."""

    code = "broker_unavailable"


class InvalidCursorError(JobsError):
    """The position in the list of jobs is not one that the list gave out."""

    code = "invalid_cursor"


class InvalidJobIdError(JobsError):
    """The identifier is not 32 lower-case hexadecimal digits, so it is never used as a path."""

    code = "invalid_job_id"


class JobGoneError(JobsError):
    """The job was erased while something was being written for it."""

    code = "job_gone"


class IdempotencyError(JobsError):
    """A client has called two requests by one name."""

    code = "idempotency_key_reused"


class UnsuitableWishError(JobsError):
    """A request that this deployment does not allow."""

    code = "invalid_parameter"


class WebhookRefusedError(UnsuitableWishError):
    """A webhook to a host that this deployment does not name, or to any where it has none."""

    code = "webhook_refused"


class DatasetError(JobsError):
    """A dataset cannot be trained on."""

    code = "dataset_error"


class DatasetNotFoundError(DatasetError):
    """There is no dataset of this name."""

    code = "dataset_not_found"


class DatasetUnsuitableError(DatasetError):
    """A dataset lacks what training needs."""

    code = "dataset_unsuitable"
