"""Damage that knows where a format's fields are: NIfTI headers, DICOM elements, zip records, gzip ends."""

from __future__ import annotations

import random
import re
import struct

from tests.fuzz.containers import END, ENTRY, LOCAL, kind_of
from tests.fuzz.corpus import gzipped
from tests.fuzz.mutations import Damage, Mutation, interesting, put

NIFTI1 = {
    "dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim": (76, "8f"), "vox_offset": (108, "f"),
    "scl_slope": (112, "f"), "scl_inter": (116, "f"), "xyzt_units": (123, "B"), "qform_code": (252, "h"),
    "sform_code": (254, "h"), "quatern": (256, "6f"), "srow": (280, "12f"), "magic": (344, "4B"),
}  # fmt: skip
"""Fields of the NIfTI-1 header: offset and types."""
NIFTI2 = {
    "magic": (4, "8B"), "datatype": (12, "h"), "bitpix": (14, "h"), "dim": (16, "8q"), "pixdim": (104, "8d"),
    "vox_offset": (168, "q"), "scl_slope": (176, "d"), "scl_inter": (184, "d"), "qform_code": (344, "i"),
    "sform_code": (348, "i"), "quatern": (352, "6d"), "srow": (400, "12d"), "xyzt_units": (500, "i"),
}  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3e38, 1e300, float("nan"), float("inf"), float("-inf"), 352.0, 353.0, 1e9)
INTEGERS = (-(2**63), -(2**31), -(2**15), -1, 0, 1, 2, 3, 4, 7, 8, 16, 32, 64, 100, 127, 255, 2**15 - 1, 2**31, 2**62)
VRS = b"AE AS CS DA DS DT FD FL IS LO LT OB OD OF OW PN SH SL SQ SS ST TM UI UL UN US UT".split()
LONG = (b"OB", b"OD", b"OF", b"OW", b"SQ", b"UN", b"UT")
ELEMENT = re.compile(b"(" + b"|".join(VRS) + b")[\x00-\xff]{2}")
ITEM = re.compile(rb"\xfe\xff[\x00\x0d\xdd]\xe0")
SIZES = {"Rows": 0x10, "Columns": 0x11, "BitsAllocated": 0x100, "BitsStored": 0x101, "PixelRepresentation": 0x103,
         "SamplesPerPixel": 0x02, "NumberOfFrames": 0x08, "PixelSpacing": 0x30}  # fmt: skip
"""Of group 0028."""
RECORDS = {ENTRY: (46, "2H2H2H3L5H2L"), LOCAL: (30, "5H3L2H"), END: (22, "4H2LH")}
"""Records of a zip: bytes, and the types of their fields after the signature."""
WIDTH = {"H": 2, "L": 4}


def nifti_field(data: bytes, dice: random.Random) -> Damage:
    """Set one value of one field to something at an edge, in the header's own byte order."""
    little = data[0] != 0
    fields = NIFTI1 if 348 in (int.from_bytes(data[:4], "little"), int.from_bytes(data[:4], "big")) else NIFTI2
    name = dice.choice(list(fields))
    offset, types = fields[name]
    kind, count = types[-1], int(types[:-1] or 1)
    size, index = struct.calcsize(kind), dice.randrange(count)
    value = dice.choice(FLOATS) if kind in "fd" else dice.choice(INTEGERS)
    return Damage(put(data, offset + index * size, _packed(kind, value, little)), f"{name}[{index}] = {value}")


def _packed(kind: str, value: float, little: bool) -> bytes:
    size, order = struct.calcsize(kind), "<" if little else ">"
    if kind in "fd":
        with_overflow = value if kind == "d" or abs(value) < 3.5e38 or value != value else float("inf")
        return struct.pack(order + kind, with_overflow)
    return (int(value) & (1 << 8 * size) - 1).to_bytes(size, "little" if little else "big")


def dicom_element(data: bytes, dice: random.Random) -> Damage:
    """Change an element's length, representation or tag, or the length of an item."""
    found = list(ELEMENT.finditer(data, 132))
    items = list(ITEM.finditer(data, 132))
    if items and (not found or dice.random() < 0.2):
        at = dice.choice(items).start() + 4
        return Damage(put(data, at, interesting(dice, 4)), f"length of an item at {at}")
    if not found:
        return dicom_size(data, dice)
    at, vr = (one := dice.choice(found)).start(), one[1]
    what = dice.choice(("length", "length", "representation", "tag"))
    if what == "length":
        size, where = (4, at + 4) if vr in LONG else (2, at + 2)
        return Damage(put(data, where, interesting(dice, size)), f"length of an element at {at}")
    if what == "tag":
        return Damage(put(data, at - 4, interesting(dice, 4)), f"tag of an element at {at}")
    return Damage(put(data, at, dice.choice(VRS)), f"representation of an element at {at}")


def dicom_size(data: bytes, dice: random.Random) -> Damage:
    """Change a value that says how large the image is or how its pixels are stored."""
    name = dice.choice(list(SIZES))
    tags = (struct.pack("<HH", 0x28, SIZES[name]), struct.pack(">HH", 0x28, SIZES[name]))
    at = max(data.find(tag, 132) for tag in tags)
    if at < 0:
        return Damage(put(data, 132, interesting(dice, 4)), "first tag")
    return Damage(put(data, at + 8, interesting(dice, 2)), name)


def zip_record(data: bytes, dice: random.Random) -> Damage:
    """Change a field of the directory, of an entry's own header or of the end; or drop or repeat a directory entry."""
    signature = dice.choice((ENTRY, ENTRY, LOCAL, END))
    places = [one.start() for one in re.finditer(re.escape(signature), data)]
    if not places:
        return Damage(data[:-1], "last byte cut off")
    at = dice.choice(places)
    size, types = RECORDS[signature]
    if signature == ENTRY and END in data and dice.random() < 0.3:
        return _directory(data, at, dice)
    if dice.random() < 0.2 and signature != END:
        length = int.from_bytes(data[(told := at + (28 if signature == ENTRY else 26)) : told + 2], "little")
        where = dice.choice((length - 1, dice.randrange(12)))
        return Damage(put(data, at + size + where, dice.choice((b"/", b"\0", b".", b"\xff"))), f"name of entry at {at}")
    fields = [kind for count, kind in re.findall(r"(\d*)([HL])", types) for _ in range(int(count or 1))]
    index = dice.randrange(len(fields))
    where = at + 4 + sum(WIDTH[one] for one in fields[:index])
    value = interesting(dice, WIDTH[fields[index]])
    return Damage(put(data, where, value), f"field {index} of the zip record at {at}")


def _directory(data: bytes, at: int, dice: random.Random) -> Damage:
    """Drop or repeat one entry of the directory; sometimes the end record is told."""
    size, repeated = 46 + sum(struct.unpack("<HHH", data[at + 28 : at + 34])), dice.random() < 0.5
    entry = data[at : at + size]
    data = data[: at + size] + entry + data[at + size :] if repeated else data[:at] + data[at + size :]
    end = data.rfind(END)
    if end >= 0 and len(data) >= end + 16 and dice.random() < 0.5:  # lengths that were damaged before may have eaten it
        (told,) = struct.unpack("<L", data[end + 12 : end + 16])
        data = put(data, end + 12, struct.pack("<L", told + (size if repeated else -size)))
    return Damage(data, f"directory entry at {at} {'repeated' if repeated else 'dropped'}")


def gzip_part(data: bytes, dice: random.Random) -> Damage:
    """Change a field of the header or of the trailer, or put something behind it."""
    what = dice.randrange(5)
    if what == 0:
        at = dice.randrange(2, 10)
        return Damage(put(data, at, bytes([dice.randrange(256)])), f"byte {at} of the gzip header")
    if what == 1:
        at = len(data) - dice.choice((8, 4))
        return Damage(put(data, at, interesting(dice, 4)), "checksum or size in the gzip trailer")
    if what == 2:
        return Damage(data + dice.choice((b"\0" * 512, b"\0\1", b"rubbish")), "something after the gzip trailer")
    if what == 3:
        return Damage(data + dice.choice((data, gzipped(b""), gzipped(b"more"))), "another gzip member")
    return Damage(data[: -dice.randrange(1, 9)], "gzip trailer cut off")


def known(data: bytes) -> list[Mutation]:
    """The mutations that know this file's format."""
    kind = kind_of(data)
    if kind is not None:
        return [gzip_part] if kind == "gzip" else [zip_record]
    if any(int.from_bytes(data[:4], order) in (348, 540) for order in ("little", "big")):
        return [nifti_field]
    return [dicom_element, dicom_element, dicom_size]
