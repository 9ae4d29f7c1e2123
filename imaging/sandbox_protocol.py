"""What the process that reads scans is asked, and what it answers: JSON, and voxels in files. Nothing is unpickled.

The reader's word is not trusted: a hostile file may have taken it over.
"""

from __future__ import annotations

import json
import logging
import math
import os
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.errors import ImagingError, ReaderCrashedError
from imaging.limits import Limits
from imaging.request import Request, Wanted
from imaging.volume import Shape, Volume

log = logging.getLogger(__name__)

ANSWER_BYTES = 4 << 20
"""Most that an answer has: the paths of 4096 slices take about 600 kB."""
DETAIL_CHARACTERS = 4000
"""Of an error's message, which may list series."""
MEMORY = 3
"""Exit status of a reader that had too little of it."""
VOXELS = "voxels-{}"
"""Name of a channel's file in the answer's folder."""
REFUSALS = {kind.code: kind for kind in ImagingError.__subclasses__()}


def request_json(request: Request, folder: Path) -> bytes:
    """A line that asks for a scan, its voxels to be put in files in ``folder``."""
    asked = {
        "paths": [str(one.absolute()) for one in request.paths],
        "workdir": str(request.workdir.absolute()),
        "limits": asdict(request.limits),
        "volumes": list(request.volumes),
        "wanted": asdict(request.wanted),
        "folder": str(folder.absolute()),
    }
    return json.dumps(asked).encode() + b"\n"


def parse_request(line: bytes) -> tuple[Request, Path]:
    """The other side of `request_json`."""
    asked = json.loads(line)
    wanted = Wanted(asked["wanted"]["series"], tuple(asked["wanted"]["modalities"]))
    request = Request(
        [Path(one) for one in asked["paths"]],
        Path(asked["workdir"]),
        Limits(**asked["limits"]),
        tuple(asked["volumes"]),
        wanted,
    )
    return request, Path(asked["folder"])


def answer_json(volume: Volume) -> bytes:
    """An answer: everything of the volume but its voxels, which are in the files already."""
    said = {
        "shape": volume.array.shape,
        "channels": len(volume.channels),
        "affine": volume.affine.tolist(),
        "modality": volume.modality,
        "warnings": volume.warnings,
        "source": [str(one) for one in volume.source],
        "frames": volume.frames,
    }
    return json.dumps({"volume": said}).encode()


def refusal_json(error: Exception) -> bytes:
    """An answer that says why there is no scan: a refusal, what the file system said, or where the reader broke down.

    Of the latter two without a word of the exception's, which may quote the scan.
    """
    if isinstance(error, ImagingError):
        return json.dumps({"code": error.code, "detail": str(error)}).encode()
    if isinstance(error, OSError) and error.errno is not None:
        return json.dumps({"errno": error.errno}).encode()
    place = traceback.extract_tb(error.__traceback__)[-1]
    return json.dumps({"broke": f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"}).encode()


def parse_answer(answer: bytes, request: Request, folder: Path) -> Volume:
    """The volume that was answered, its voxels mapped from the files in ``folder``.

    Raises:
        ImagingError: the answer is a refusal, or none at all.
        OSError: the file system refused something.
    """
    try:
        said = json.loads(answer)
        if "volume" in said:
            return _volume(said["volume"], request, folder)
        error = _error(said)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise ReaderCrashedError("the reader's answer cannot be understood") from None
    raise error


def _error(said: dict[str, Any]) -> Exception:
    if "errno" in said:
        return OSError(int(said["errno"]), os.strerror(int(said["errno"])))
    if "broke" in said:
        log.error("the reader broke down: %r", str(said["broke"])[:DETAIL_CHARACTERS])
        return ReaderCrashedError("the process that read the scan broke down on it")
    return REFUSALS[said["code"]](str(said["detail"])[:DETAIL_CHARACTERS])


def _volume(said: dict[str, Any], request: Request, folder: Path) -> Volume:
    x, y, z = (int(one) for one in said["shape"])
    channels = int(said["channels"])
    if min(x, y, z) < 1 or not 1 <= channels <= max(1, len(request.volumes)) or x * y * z > request.limits.voxels:
        raise ValueError("a shape that was not asked for")
    first, *further = (map_voxels(folder / VOXELS.format(number), (x, y, z)) for number in range(channels))
    modality = said["modality"]
    return Volume(
        first,
        np.array(said["affine"], dtype=np.float64),
        modality=None if modality is None else str(modality),
        warnings=tuple(str(one) for one in said["warnings"]),
        further=tuple(further),
        source=_source(said["source"], request),
        frames=tuple(int(one) for one in said["frames"]),
    )


def _source(paths: Sequence[str], request: Request) -> tuple[Path, ...]:
    """Paths of slices, if they are among what was asked for or was unpacked from it."""
    asked = {one.absolute() for one in (request.workdir, *request.paths)}
    source = tuple(Path(one) for one in paths)
    for path in set(source):
        if ".." in path.parts or path.is_symlink() or asked.isdisjoint((path, *path.parents)):
            raise ValueError("a file that was not asked for")
    return source


def map_voxels(path: Path, shape: Shape) -> NDArray[np.float32]:
    """A channel (x, y, z) as a file has it, x along a line; the file's name may go while it is in use."""
    if path.is_symlink() or path.stat().st_size != 4 * math.prod(shape):
        raise ValueError("a file of another size")
    return np.memmap(path, np.float32, "r", shape=shape, order="F")
