"""The files of a finished job as responses, its verdict in the headers."""

from __future__ import annotations

from starlette.responses import FileResponse, MalformedRangeHeader, RangeNotSatisfiable, Response

from jobs.blobs import GZIP_MAGIC, Blobs
from jobs.models import Job
from jobs.state import JobState
from service.errors import Problem

POLL_S = 1
"""What `Retry-After` says of a job that is not finished."""
SEGMENTATION, REPORT = "segmentation", "report"
"""Mask and verdict as DICOM SEG and SR, which only a scan that came as DICOM has."""
FILES = {
    "mask": ("mask.nii.gz", "application/gzip"),
    "uncertainty": ("uncertainty.nii.gz", "application/gzip"),
    "preview": ("preview.png", "image/png"),
    SEGMENTATION: ("segmentation.dcm", "application/dicom"),
    REPORT: ("report.dcm", "application/dicom"),
}
"""File name and media type of each artefact."""
SCAN_TYPES = ("application/gzip", "application/octet-stream")
"""Of a scan as NIfTI, packed and plain."""


class Download(FileResponse):
    """A file or parts of it (RFC 9110, 14.2), which are never more than the file: overlapping ones are joined."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        """The parts; none where the header is to be passed over.

        Raises:
            Problem: ``range_not_satisfiable``.
        """
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except RangeNotSatisfiable:
            raise Problem("range_not_satisfiable", headers={"Content-Range": f"bytes */{file_size}"}) from None


def artefact(blobs: Blobs, job: Job, name: str, *, failure_status: int = 409) -> Response:
    """One file of a succeeded job.

    Raises:
        Problem: ``job_not_finished``, ``job_cancelled``, ``result_gone``, ``not_acceptable`` (no DICOM), or the
            job's own failure code with ``failure_status``.
    """
    check_succeeded(job, failure_status=failure_status)
    file_name, media_type = FILES[name]
    path = blobs.result_dir(job.id, job.attempt) / file_name
    if not path.is_file():
        if name in (SEGMENTATION, REPORT) and path.parent.is_dir():
            raise Problem("not_acceptable", "there is no such DICOM object: see the warnings, or the scan was no DICOM")
        raise Problem("result_gone")
    return Download(path, media_type=media_type, filename=f"{job.id}_{file_name}", headers=verdict(job))


def scan(blobs: Blobs, job: Job) -> Response:
    """The scan of a succeeded job as NIfTI: as it was sent, or what the worker made of DICOM.

    Raises:
        Problem: as of `artefact`; ``result_gone`` where it is no NIfTI and none was made of it.
    """
    check_succeeded(job)
    path = blobs.scan(job.id, job.attempt)
    if path is None:
        raise Problem("result_gone", "the scan did not come as NIfTI, and none was made of it")
    with path.open("rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    ending = ".nii.gz" if packed else ".nii"
    media_type = SCAN_TYPES[0 if packed else 1]
    return Download(path, media_type=media_type, filename=f"{job.id}_scan{ending}", headers=verdict(job))


def check_succeeded(job: Job, *, failure_status: int = 409) -> None:
    """Raise the `Problem` of a job that has no result: ``job_not_finished``, ``job_cancelled`` or its own code."""
    if not job.finished:
        raise Problem("job_not_finished", f"the job is {job.state}", headers={"Retry-After": str(POLL_S)})
    if job.state is JobState.CANCELLED:
        raise Problem("job_cancelled", members={"job": job.id})
    if job.state is JobState.FAILED:
        code = job.error_code or "job_failed"
        raise Problem(code, job.error_detail or "", status=failure_status, members={"job": job.id})


def verdict(job: Job) -> dict[str, str]:
    """The verdict on a succeeded job as headers; a figure that is undefined has none."""
    result = job.result or {}
    figures = {
        "NCAgate-Verdict": result.get("verdict"),
        "NCAgate-NQM": result.get("nqm"),
        "NCAgate-Predicted-Dice": result.get("predicted_dice"),
        "NCAgate-Reasons": ",".join(one["code"] for one in result.get("reasons") or ()),
        "NCAgate-Job": job.id,
    }
    return {name: str(value) for name, value in figures.items() if value is not None}
