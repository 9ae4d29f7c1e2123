"""The files of a finished job as responses, its verdict in the headers."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager

from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, MalformedRangeHeader, RangeNotSatisfiable, Response

from jobs.blobs import GZIP_MAGIC, Blobs, Content, beginning
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


class RemoteDownload(Download):
    """The same of a file that is not on this machine: what is asked for streams through, and no more of it is had."""

    def __init__(self, content: Content, *, media_type: str, filename: str, headers: Mapping[str, str]) -> None:
        self._content = content
        when = int(content.modified)
        found = os.stat_result((stat.S_IFREG, 0, 0, 1, 0, 0, content.size, when, when, when))
        super().__init__(filename, media_type=media_type, filename=filename, headers=headers, stat_result=found)

    @asynccontextmanager
    async def _open_file(self) -> AsyncIterator[_Reader]:  # type: ignore[override]  # read and seek are what is used
        reader = _Reader(self._content)
        try:
            yield reader
        finally:
            reader.close()


class _Reader:
    """Reads on from where it was sent to."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._chunks: Iterator[bytes] | None = None
        self._at = 0
        self._rest = b""

    async def seek(self, offset: int) -> None:
        self.close()
        self._at = offset

    async def read(self, size: int) -> bytes:
        """``size`` bytes; fewer at the end."""
        return await run_in_threadpool(self._read, size)

    def close(self) -> None:
        """Let go of the connection."""
        if self._chunks is not None:
            self._chunks.close()  # type: ignore[attr-defined]  # they are a generator
        self._chunks, self._rest = None, b""

    def _read(self, size: int) -> bytes:
        if self._chunks is None:
            self._chunks = self._content.chunks(start=self._at)
        parts = [self._rest]
        while sum(map(len, parts)) < size and (chunk := next(self._chunks, b"")):
            parts.append(chunk)
        data = b"".join(parts)
        self._rest = data[size:]
        return data[:size]


def artefact(blobs: Blobs, job: Job, name: str, *, failure_status: int = 409) -> Response:
    """One file of a succeeded job.

    Raises:
        Problem: ``job_not_finished``, ``job_cancelled``, ``result_gone``, ``not_acceptable`` (no DICOM), or the
            job's own failure code with ``failure_status``.
    """
    check_succeeded(job, failure_status=failure_status)
    file_name, media_type = FILES[name]
    content = blobs.find(job.id, job.attempt, file_name)
    if content is None:
        if name in (SEGMENTATION, REPORT) and blobs.find(job.id, job.attempt, FILES["mask"][0]) is not None:
            raise Problem("not_acceptable", "there is no such DICOM object: see the warnings, or the scan was no DICOM")
        raise Problem("result_gone")
    return _download(content, job, file_name, media_type=media_type)


def scan(blobs: Blobs, job: Job) -> Response:
    """The scan of a succeeded job as NIfTI: as it was sent, or what the worker made of DICOM.

    Raises:
        Problem: as of `artefact`; ``result_gone`` where it is no NIfTI and none was made of it.
    """
    check_succeeded(job)
    content = blobs.scan(job.id, job.attempt)
    if content is None:
        raise Problem("result_gone", "the scan did not come as NIfTI, and none was made of it")
    packed = beginning(content).startswith(GZIP_MAGIC)
    name = "scan.nii.gz" if packed else "scan.nii"
    return _download(content, job, name, media_type=SCAN_TYPES[0 if packed else 1])


def _download(content: Content, job: Job, name: str, *, media_type: str) -> Response:
    shown = f"{job.id}_{name}"
    if content.path is None:
        return RemoteDownload(content, media_type=media_type, filename=shown, headers=verdict(job))
    return Download(content.path, media_type=media_type, filename=shown, headers=verdict(job))


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
