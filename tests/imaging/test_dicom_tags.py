"""Whatever the elements of a small series say: a volume or a refusal, and no memory for pixels that are not there."""

from __future__ import annotations

import struct
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.tag import Tag

from imaging.limits import Limits
from imaging.read import read_scan
from imaging.request import Request
from imaging.volume import Volume
from tests.fuzz.bounded import read_bounded

BOUNDED = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LONG = ("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV")
VRS = ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL",
       "US", *LONG)  # fmt: skip
KEYWORDS = (
    "SOPClassUID", "Modality", "SeriesInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope",
    "RescaleIntercept", "ModalityLUTSequence", "PixelData", "PatientName", "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence", "ExtendedOffsetTable", "FloatPixelData",
)  # fmt: skip
"""Elements that reading looks at, and one that it does not."""
BYTES_MAX = 48 << 20
"""Most that reading three slices of 640 bytes takes; a claim may be of gigabytes."""

Element = tuple[int, str, bytes, int | None]
"""Tag, representation, value, and a length that is written in place of the value's."""

values = (
    st.binary(max_size=20)
    | st.sampled_from(
        [b"", b"0", b"-1", b"1e9", b"nan ", b"inf ", b"1\\0\\0\\0\\1\\0 ", b"9" * 30, b"MONOCHROME1 ", b"A\\B\\C "]
    )
    | st.integers(0, 2**16 - 1).map(lambda value: struct.pack("<H", value))
    | st.floats().map(lambda value: str(value).encode())
)
lengths = st.none() | st.sampled_from([0, 1, 2, 3, 8, 0xFFFF, 0xFFFE, 0x7FFFFFFF, 0xFFFFFFFF]) | st.integers(0, 2000)


@st.composite
def changes(draw: st.DrawFn) -> Callable[[list[Element]], list[Element]]:
    """Take out, replace, repeat or put in an element, or lie about its representation or length."""
    tag = int(Tag(draw(st.sampled_from(KEYWORDS))))
    what = draw(st.sampled_from(["remove", "value", "vr", "length", "repeat"]))
    vr, value, length = draw(st.sampled_from(VRS)), draw(values), draw(lengths)

    def change(elements: list[Element]) -> list[Element]:
        there = [one for one in elements if one[0] == tag]
        if what == "remove" or not there:
            kept = [one for one in elements if one[0] != tag]
            return kept if what == "remove" else sorted([*kept, (tag, vr, value, length)])
        _, known, before, _ = there[0]
        new = {
            "value": (tag, known, value, None),
            "vr": (tag, vr, before, None),
            "length": (tag, known, before, length),
            "repeat": (tag, known, value, None),
        }[what]
        return [two for one in elements for two in ([new] if one[0] == tag else [one])] + [new] * (what == "repeat")

    return change


def elements_of(path: Path) -> tuple[bytes, list[Element]]:
    """What comes before the first element of a file, and all that have a group above 2."""
    data, dataset = path.read_bytes(), dcmread(path)
    raw = [dataset.get_item(tag) for tag in sorted(dataset.keys())]
    elements: list[Element] = [(int(one.tag), str(one.VR), one.value or b"", None) for one in raw]
    start = 132 + 12 + struct.unpack("<L", data[140:144])[0]
    return data[:start], elements


def encoded(element: Element) -> bytes:
    tag, vr, value, length = element
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in LONG:
        return head + struct.pack("<2xL", size) + value
    return head + struct.pack("<H", size & 0xFFFF) + value


@pytest.fixture(scope="module")
def slices(
    make_slices: Callable[..., list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[bytes, list[Element]]]:
    """Three slices, taken apart."""
    return [elements_of(path) for path in make_slices(tmp_path_factory.mktemp("series"))]


def outcome(slices: list[tuple[bytes, list[Element]]]) -> Volume | str:
    """The volume, checked, or the code of the refusal."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = [Path(folder) / f"{number}.dcm" for number in range(len(slices))]
        for path, (head, elements) in zip(paths, slices, strict=True):
            path.write_bytes(head + b"".join(encoded(one) for one in elements))
        return read_bounded(lambda: read_scan(Request(paths, Path(folder), Limits())), bytes_max=BYTES_MAX)


class TestAnyElements:
    def test_the_undamaged_ones_are_read(self, slices: list[tuple[bytes, list[Element]]]) -> None:
        assert isinstance(outcome(slices), Volume)

    @BOUNDED
    @given(st.integers(0, 2), st.lists(changes(), min_size=1, max_size=3))
    def test_in_one_slice(
        self,
        slices: list[tuple[bytes, list[Element]]],
        index: int,
        wanted: list[Callable[[list[Element]], list[Element]]],
    ) -> None:
        outcome([self.changed(one, wanted) if number == index else one for number, one in enumerate(slices)])

    @BOUNDED
    @given(st.lists(changes(), min_size=1, max_size=3))
    def test_in_every_slice(
        self, slices: list[tuple[bytes, list[Element]]], wanted: list[Callable[[list[Element]], list[Element]]]
    ) -> None:
        outcome([self.changed(one, wanted) for one in slices])

    @staticmethod
    def changed(
        one: tuple[bytes, list[Element]], wanted: list[Callable[[list[Element]], list[Element]]]
    ) -> tuple[bytes, list[Element]]:
        head, elements = one
        for change in wanted:
            elements = change(elements)
        return head, elements
