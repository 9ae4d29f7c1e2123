"""How much one scan may cost before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

GIBI = 1024**3
MEBI = 1024**2


@dataclass(frozen=True)
class Limits:
    """Upper bounds for one scan, each inclusive.

    Attributes:
        unpacked_bytes: bytes after decompression, all files together. 2 GiB is 512 x 512 x 2048 voxels of 32 bits.
        files: files of one scan. 4096 slices is above any series of one frame per file seen in practice.
        voxels: voxels of one volume. 128 Mi voxels are 512 MiB as float32.
    """

    unpacked_bytes: int = 2 * GIBI
    files: int = 4096
    voxels: int = 128 * MEBI
