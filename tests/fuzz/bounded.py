"""Reading what was made up: a volume or a documented refusal, within bounded memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np

from imaging.errors import ImagingError
from imaging.volume import Volume

CODES = {one.code for one in ImagingError.__subclasses__()}


def read_bounded(read: Callable[[], Volume], *, bytes_max: int) -> Volume | str:
    """The volume, checked, or the code of the refusal; any other error, or more memory, fails the test."""
    tracemalloc.start()
    try:
        volume: Volume | str = read()
    except ImagingError as error:
        volume = error.code
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < bytes_max
    if isinstance(volume, str):
        assert volume in CODES
        return volume
    assert volume.array.dtype == np.float32
    assert np.isfinite(volume.array).all()
    assert np.isfinite(np.linalg.inv(volume.affine)).all()
    return volume
