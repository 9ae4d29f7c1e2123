"""Every problem the gateway itself answers with: one table, from stable code to status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

JOB_FAILED_TITLE = "The scan could not be segmented"


@dataclass(frozen=True)
class ProblemType:
    """One kind of problem: what clients may rely on is ``code`` and ``status``."""

    code: str
    status: int
    title: str
    detail: str


_TABLE = (
    ProblemType("malformed_request", 400, "The request could not be read", "the body is not what its header says"),
    ProblemType("malformed_upload", 400, "The multipart body is malformed", "a part has no name"),
    ProblemType("upload_incomplete", 400, "The upload was cut off", "the body ended before its last boundary"),
    ProblemType("unauthenticated", 401, "Who are you?", "the request names no key"),
    ProblemType("forbidden", 403, "This key may not do that", "the scope `admin` is needed"),
    ProblemType("not_local", 403, "Without a key only this machine may ask", "the request came through a proxy"),
    ProblemType("not_found", 404, "There is nothing at this address", "no route matches this path"),
    ProblemType("job_not_found", 404, "There is no such job", "no job has this identifier"),
    ProblemType("model_not_found", 404, "There is no such model", "no model is called 'brain'"),
    ProblemType("version_not_found", 404, "There is no such version", "'hippocampus' has no version '9.9.9'"),
    ProblemType("dataset_not_found", 404, "There is no such dataset", "no dataset is called 'liver'"),
    ProblemType("training_not_found", 404, "There is no such training", "no training has this identifier"),
    ProblemType("object_not_found", 404, "There is no such DICOM object", "no result has these identifiers"),
    ProblemType("method_not_allowed", 405, "This address does not answer to this method", "use GET or DELETE"),
    ProblemType("not_acceptable", 406, "None of the accepted media types is on offer", "ask for application/json"),
    ProblemType("upload_too_slow", 408, "The upload was too slow", "4096 bytes a second are expected"),
    ProblemType("job_not_finished", 409, "The job has no result yet", "the job is queued"),
    ProblemType("job_cancelled", 409, "The job was cancelled", "the job was cancelled and has no result"),
    ProblemType("result_gone", 410, "The result is not there any more", "the file was removed from the store"),
    ProblemType("body_too_large", 413, "The request body is too large", "at most 536870912 bytes are accepted"),
    ProblemType("too_many_files", 413, "The request holds too many files", "at most 4096 files are accepted"),
    ProblemType("unsupported_media_type", 415, "The body is of another media type", "send multipart/form-data"),
    ProblemType("range_not_satisfiable", 416, "The file has no such part", "the range begins beyond its end"),
    ProblemType("missing_scan", 422, "The request holds no scan", "put the scan into the field 'scan'"),
    ProblemType("empty_file", 422, "A file is empty", "file 1 of the field 'scan' has no bytes"),
    ProblemType("unexpected_field", 422, "The form has a field nobody knows", "the form has a field 'file'"),
    ProblemType("invalid_parameter", 422, "A parameter is out of range", "members: at most 50"),
    ProblemType("idempotency_key_reused", 422, "Another request has this key", "its scan or its fields were others"),
    ProblemType("dataset_unsuitable", 422, "The dataset cannot be trained on", "it has no training.toml"),
    ProblemType("webhook_refused", 422, "The webhook is not allowed", "webhook: this deployment sends none"),
    ProblemType("alias_invalid", 422, "The alias cannot be set", "'production' has no earlier version to return to"),
    ProblemType("rate_limited", 429, "Too many requests", "wait as long as Retry-After says"),
    ProblemType("too_many_uploads", 429, "Too many uploads at once", "at most 8 at once"),
    ProblemType("too_many_jobs", 429, "Too many jobs are waiting", "2000 jobs of this client are queued"),
    ProblemType("internal_error", 500, "The gateway made a mistake", "it has been logged"),
    ProblemType("version_corrupt", 503, "This version is damaged", "the weights differ from their checksum"),
    ProblemType("identity_unavailable", 503, "Nobody can be known right now", "the keys of tokens cannot be had"),
    ProblemType("database_unavailable", 503, "The database does not answer", "try again later"),
    ProblemType("storage_unavailable", 503, "The blob store does not answer", "nothing of the upload was kept"),
    ProblemType("queue_full", 503, "The service has more work than it takes", "10000 jobs are queued"),
    ProblemType("not_ready", 503, "The service cannot work right now", "broker: the broker does not answer"),
    ProblemType("storage_full", 507, "The disk is full", "nothing of the upload was kept"),
)
PROBLEMS: Mapping[str, ProblemType] = {one.code: one for one in _TABLE}
"""By code."""


class Problem(HTTPException):
    """An answer that is a problem; ``members`` are further fields of its body.

    The code stands in `PROBLEMS`, unless ``status`` is given: then it is a job's own failure code.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        kind = PROBLEMS[code] if status is None else ProblemType(code, status, JOB_FAILED_TITLE, "")
        super().__init__(kind.status, detail or kind.detail, dict(headers or {}))
        self.code = code
        self.title = kind.title
        self.members = dict(members or {})
