"""A job's files: what they are called, and how they come to the disk whole or not at all."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx

from ncagate.client.errors import DamagedDownloadError, NoAnswerError, NotUnderstoodError, fault_of
from ncagate.client.patience import Trials
from ncagate.client.scans import ScanPath
from ncagate.client.steps import Call, Do, Flow, Read
from ncagate.client.types import Part

ENDINGS = {
    Part.MASK: "mask.nii.gz",
    Part.UNCERTAINTY: "uncertainty.nii.gz",
    Part.PREVIEW: "preview.png",
    Part.SEGMENTATION: "segmentation.dcm",
    Part.REPORT: "report.dcm",
}
"""How the file of each part is called, after a name and an underscore."""
DICOM = "application/dicom"
_ADDRESSES = {Part.SEGMENTATION: ("mask", DICOM), Part.REPORT: ("report", DICOM), Part.MASK: ("mask", "*/*")}


def file_call(job: str, part: Part, *, etag: str | None, start: int) -> Call:
    """Ask for a file, from byte ``start`` of the one with this tag, or else from its beginning."""
    name, media_type = _ADDRESSES.get(part, (part.value, "*/*"))
    headers = {"Accept": media_type, "Accept-Encoding": "identity"}
    if etag is not None and start:
        headers |= {"Range": f"bytes={start}-", "If-Range": etag}
    return Call("GET", f"/jobs/{quote(job, safe='')}/{name}", headers=headers, stream=True)


def fetch(job: str, part: Part, file: BinaryIO, trials: Trials) -> Flow[None]:
    """Write a file of the job to ``file``, which is empty; where the connection breaks, go on where it broke.

    Raises:
        NcagateError: of `Trials.send`; `DamagedDownloadError`, it is not as long as was announced.
    """
    etag, size, total = None, 0, None
    while True:
        response = yield from trials.send(file_call(job, part, etag=etag, start=size))
        if not _goes_on(response, size):
            yield Do(lambda: (file.seek(0), file.truncate()))
            size, total, etag = 0, _length(response), response.headers.get("etag")
        try:
            while (data := (yield Read(response))) is not None:
                yield Do(_writing(file, data))
                size += len(data)
                trials.worked()
        except httpx.TransportError as error:
            yield from trials.pause(fault_of(error))
            continue
        if total is None or size == total:
            return
        if size > total:
            raise DamagedDownloadError(f"{size} bytes came of {total}")
        yield from trials.pause(NoAnswerError(f"{size} bytes came of {total}"))


def _goes_on(response: httpx.Response, size: int) -> bool:
    """Whether it is the rest of the file, and not all of it.

    Raises:
        NotUnderstoodError: it is neither, or somebody between has changed it.
    """
    if "content-encoding" in response.headers:
        raise NotUnderstoodError("the file came in another encoding")
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        if not response.headers.get("content-range", "").startswith(f"bytes {size}-"):
            raise NotUnderstoodError("another part of the file came")
        return True
    if "content-length" not in response.headers and "transfer-encoding" not in response.headers:
        raise NotUnderstoodError("the file came without a length")
    return False


def _writing(file: BinaryIO, data: bytes) -> Callable[[], object]:
    return lambda: file.write(data)


def _length(response: httpx.Response) -> int | None:
    length = response.headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() else None


def fetch_bytes(job: str, part: Part, trials: Trials) -> Flow[bytes]:
    """A file of the job, in memory."""
    buffer = io.BytesIO()
    yield from fetch(job, part, buffer, trials)
    return buffer.getvalue()


def fetch_to(job: str, part: Part, target: Path, trials: Trials) -> Flow[Path]:
    """A file of the job at ``target``, where it appears when it is whole; until then stays what was there before."""
    descriptor, name = _partial(target)
    try:
        with open(descriptor, "w+b") as file:  # noqa: PTH123  # a descriptor
            yield from fetch(job, part, file, trials)
            yield Do(file.flush)
            yield Do(lambda: os.fsync(file.fileno()))
        yield Do(lambda: Path(name).replace(target))
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target


def _partial(target: Path) -> tuple[int, str]:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.fchmod(descriptor, 0o666 & ~_umask())
    return descriptor, name


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def target_of(where: ScanPath, part: Part, *, name: str) -> Path:
    """The path of a part: in the folder ``where`` by ``name``, or ``where`` itself if that has the part's ending.

    Raises:
        ValueError: it is neither.
    """
    path, ending = Path(where), ENDINGS[part]
    if path.is_dir() or str(where).endswith(os.sep):
        return path / f"{name}_{ending}"
    suffix = ending[ending.index(".") :]
    if path.name.endswith(suffix):
        return path
    raise ValueError(f"{path}: neither a folder that is there nor the name of a {suffix} file")
