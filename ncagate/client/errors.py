"""What can go wrong between a client and the service: one tree, from the stable ``code`` of the problem."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

TRY_AGAIN = frozenset({429, 502, 503, 504})
"""Statuses after which the same request may be sent again."""
LASTING = frozenset({"version_corrupt"})
"""Codes with such a status that another attempt does not mend."""
CUT_OFF = "upload_incomplete"
"""What a proxy may pass on where the network took the rest of an upload."""


class NcagateError(Exception):
    """Anything that the client raises on purpose; ``code`` is stable, the text is for people."""

    code: str = "client_error"


class ScanError(NcagateError):
    """There is no scan to send: no such file, an empty folder, or it changed while it was sent."""

    code = "scan_unusable"


class SetupError(NcagateError):
    """The client cannot be made so: an address, a key or a file of certificates that is none."""

    code = "client_setup"


class NoAnswerError(NcagateError):
    """Nobody answered, or the connection broke again and again."""

    code = "no_answer"


class UntrustedServerError(NcagateError):
    """The server has no certificate that is trusted here."""

    code = "server_untrusted"


class NotUnderstoodError(NcagateError):
    """What answered is no ncagate, or a version of it that speaks otherwise."""

    code = "not_understood"


class DamagedDownloadError(NcagateError):
    """A file came with another length than was announced."""

    code = "download_damaged"


class WaitTimeoutError(NcagateError, TimeoutError):
    """The job had not ended when the time was over; it goes on. ``job`` is its identifier."""

    code = "timed_out"

    def __init__(self, message: str, *, job: str) -> None:
        super().__init__(message)
        self.job = job


class ProblemError(NcagateError):
    """The service refused, in its own words.

    Attributes:
        code: stable name of the problem (docs/api.md).
        status: of HTTP; None where it is not that of an answer.
        job: identifier of the job it is about, if of one.
        retry_after: seconds to wait before another attempt, if the service said so.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        job: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.code, self.detail, self.status = code, detail, status
        self.job, self.retry_after = job, retry_after


class AccessError(ProblemError):
    """No key, a key that is not in force, or one that may not do this."""


class RejectedError(ProblemError):
    """The request or the scan is not what the service takes; again, it would be refused again."""


class NotFoundError(ProblemError):
    """No such job, model, version or file, or it is another client's."""


class NotFinishedError(ProblemError):
    """The job has no result yet."""


class ServiceError(ProblemError):
    """The service made a mistake, or something of it is damaged."""


class UnavailableError(ServiceError):
    """The service is busy, full or cannot work right now: later it may."""


class JobFailedError(ProblemError):
    """The job ended without a result; ``code`` says why (docs/api.md, "Why a job fails")."""


class JobCancelledError(ProblemError):
    """The job was cancelled, and has no result."""


def problem_of(response: httpx.Response, *, retry_after: float | None = None) -> ProblemError:
    """The error that an answer of 400 or more is; its body has been read."""
    body = _body(response)
    status = response.status_code
    code = str(body.get("code") or f"http_{status}")
    detail = str(body.get("detail") or response.reason_phrase or f"status {status}")
    job = body.get("job")
    return _kind(status, code, job)(code, detail, status=status, job=job, retry_after=retry_after)


def _kind(status: int, code: str, job: object) -> type[ProblemError]:
    by_code = {"job_not_finished": NotFinishedError, "job_cancelled": JobCancelledError}
    if code in by_code:
        return by_code[code]
    if status == 409 and job is not None:
        return JobFailedError
    if status in (401, 403):
        return AccessError
    if status in (404, 410):
        return NotFoundError
    if status in TRY_AGAIN | {507} and code not in LASTING:
        return UnavailableError
    return ServiceError if status >= 500 else RejectedError


def _body(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = json.loads(response.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def fault_of(error: httpx.RequestError) -> NcagateError:
    """The error that no answer is."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UntrustedServerError(cause.verify_message)
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TransportError):
        return NoAnswerError(str(error) or type(error).__name__)
    return NotUnderstoodError(str(error))


def passes(error: NcagateError) -> bool:
    """Whether the same request may be answered otherwise in a moment."""
    if isinstance(error, ProblemError):
        again = error.status in TRY_AGAIN and error.code not in LASTING
        return again or error.code == CUT_OFF or (error.status == 507 and error.retry_after is not None)
    return isinstance(error, NoAnswerError)
