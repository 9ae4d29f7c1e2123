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
        files: files of one scan, or frames of one file. 4096 slices is above any series seen in practice.
        voxels: voxels of one volume. 128 Mi voxels are 512 MiB as float32.
        memory: bytes of address space that reading takes. A NIfTI file is in memory whole, beside its voxels.
        seconds: of work, and by the clock. A series of 500 slices takes about one.
    """

    unpacked_bytes: int = 2 * GIBI
    files: int = 4096
    voxels: int = 128 * MEBI
    memory: int = 3 * GIBI
    seconds: int = 120
