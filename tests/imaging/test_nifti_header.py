"""Whatever the 348 bytes of a NIfTI-1 header say: a volume or a refusal, and no memory for what is not there."""

from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import nibabel
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.limits import Limits
from imaging.nifti import read_nifti
from imaging.volume import Volume
from tests.fuzz.bounded import read_bounded
from tests.fuzz.formats import NIFTI1

BOUNDED = settings(max_examples=400, derandomize=True, deadline=None, database=None)
SHAPE = (4, 5, 6)
BYTES_MAX = 6 << 20
"""Most that reading these small files takes: a chunk of a MiB, and the interpreter's own; a claim may be of 512 MiB."""
WHOLE = nibabel.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), np.diag([1.0, 2.0, 3.0, 1.0])).to_bytes()
HEADER, BODY = WHOLE[:348], WHOLE[348:]

integers = st.sampled_from([-(2**31), -32768, -1, 0, 1, 2, 3, 4, 7, 8, 16, 64, 128, 256, 1024, 2304, 32767, 2**31 - 1])
floats = st.sampled_from([0.0, -0.0, 1.0, -1.0, 351.0, 352.0, 353.5, 1e-30, 3e38, float("nan"), float("inf")])


@st.composite
def edits(draw: st.DrawFn) -> tuple[int, bytes]:
    """A place in the header and what is written there: a field's value at an edge, or any bytes."""
    kind_of_edit = draw(st.integers(0, 7))
    if kind_of_edit == 0:  # a large claim: 512 voxels along each axis are just within the limits
        return 40, struct.pack("<4h", 3, *draw(st.tuples(*[st.sampled_from([512, 32767, 1])] * 3)))
    if kind_of_edit <= 2:
        return draw(st.integers(0, 347)), draw(st.binary(min_size=1, max_size=8))
    offset, types = NIFTI1[draw(st.sampled_from(sorted(NIFTI1)))]
    kind, count = types[-1], int(types[:-1] or 1)
    at = offset + draw(st.integers(0, count - 1)) * struct.calcsize(kind)
    if kind == "f":
        return at, struct.pack("<f", draw(floats | st.floats(width=32)))
    value = draw(integers | st.integers(-(2**31), 2**31 - 1))
    return at, (value & 0xFFFFFFFF).to_bytes(4, "little")[: struct.calcsize(kind)]


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A header that was valid before a few edits; sometimes of the other byte order."""
    header = HEADER
    for at, value in draw(st.lists(edits(), min_size=1, max_size=4)):
        header = (header[:at] + value + header[at + len(value) :])[:348]
    if draw(st.integers(0, 9)) == 0:
        header = bytes(nibabel.Nifti1Header(header, check=False).as_byteswapped().binaryblock)
    return header


bodies = st.sampled_from([b"", BODY, BODY, BODY, BODY[:-1], BODY + b"\0", BODY * 9]) | st.binary(max_size=300)


def outcome(data: bytes) -> Volume | str:
    """The volume, checked, or the code of the refusal."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan"
        path.write_bytes(data)
        volume = read_bounded(lambda: read_nifti(path, limits=Limits()), bytes_max=BYTES_MAX)
    assert isinstance(volume, str) or min(volume.array.shape) > 1
    return volume


class TestAnyHeader:
    def test_the_undamaged_one_is_read(self) -> None:
        assert isinstance(outcome(WHOLE), Volume)

    @BOUNDED
    @given(headers(), bodies, st.booleans())
    def test_that_was_valid_once(self, header: bytes, body: bytes, packed: bool) -> None:
        data = header + body
        outcome(gzip.compress(data, 1) if packed else data)

    @BOUNDED
    @given(st.binary(min_size=348, max_size=348), bodies)
    def test_of_any_bytes(self, header: bytes, body: bytes) -> None:
        outcome(header + body)

    @BOUNDED
    @given(st.binary(min_size=340, max_size=340), bodies)
    def test_of_any_bytes_between_size_and_magic(self, middle: bytes, body: bytes) -> None:
        outcome(HEADER[:4] + middle + HEADER[344:] + body)

    def test_the_edits_reach_every_end(self) -> None:
        """What is drawn is not refused at the first check always."""
        ends: set[str] = set()

        @settings(BOUNDED, max_examples=1000)
        @given(headers())
        def draw(header: bytes) -> None:
            found = outcome(header + BODY)
            ends.add(found if isinstance(found, str) else "read")

        draw()
        assert ends >= {
            "read", "unknown_format", "header_size_mismatch", "not_three_dimensional", "unsupported_datatype",
            "singular_affine", "non_finite_voxels", "truncated_file", "too_many_voxels",
        }  # fmt: skip
