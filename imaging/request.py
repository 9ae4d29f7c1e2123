"""What is to be read, and how: light to import, for the process that asks does not read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imaging.limits import Limits


@dataclass(frozen=True)
class Wanted:
    """Which of several DICOM series is the scan: the one of this identifier, or else of these modalities; () is any."""

    series: str | None = None
    modalities: tuple[str, ...] = ()


ANY = Wanted()


@dataclass(frozen=True)
class Request:
    """One scan that somebody wants.

    Attributes:
        paths: one NIfTI file, one zip (of one NIfTI or a DICOM series), DICOM files, or folders of those.
        workdir: an existing folder of the caller's; what is unpacked goes into new folders inside it.
        limits: bounds on files, unpacked bytes, voxels, memory and time.
        volumes: which ones of a NIfTI file with several are the scan's channels, from 0; none refuses such files.
        wanted: which one of several DICOM series is the scan.
    """

    paths: Sequence[Path]
    workdir: Path
    limits: Limits
    volumes: Sequence[int] = ()
    wanted: Wanted = ANY
