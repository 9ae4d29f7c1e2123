"""Files that are small and claim or become much, through the whole stack: each ends with its code, and costs little."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MRImageStorage, generate_uid

MIB = 1024 * 1024
WITNESS = Path("/tmp/ncagate-attack-witness")  # where a file that climbs out would land
DISK = 64 * MIB
"""More than any of them may leave: a budget of 16 MiB is unpacked at most, and gone again."""
MEMORY = 1024 * MIB
"""More than the worker's children ever take on scans this small."""


def nifti() -> bytes:
    array = np.random.default_rng(0).normal(0, 1, (16, 16, 16)).astype(np.float32)
    data: bytes = Nifti1Image(array, np.eye(4)).to_bytes()
    return data


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def climbing(name: str) -> bytes:
    return zipped((zipfile.ZipInfo(name), nifti()))


def link(target: str) -> tuple[zipfile.ZipInfo, bytes]:
    entry = zipfile.ZipInfo("folder")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry, target.encode()


def many_entries() -> bytes:
    """A hundred thousand empty files."""
    local = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    head = struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    count = 100_000
    directory = (b"PK\x01\x02" + head + b"a") * count
    end64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(directory), len(local))
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, len(local) + len(directory), 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return local + directory + end64 + locator + end


def hidden_entries() -> bytes:
    """As many, and an end that says that there is one."""
    return many_entries()[: -22 - 20 - 56] + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, 47 * 100_000, 31, 0)


def overlapping() -> bytes:
    """Fifty entries that are all the same ten megabytes of zeros."""
    data = bytes(10 * MIB)
    packed = zlib.compress(data, 9)[2:-4]
    fields = (0, zlib.crc32(data), len(packed), len(data), 1, 0)
    local = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, *fields) + b"a" + packed
    central = b"PK\x01\x02" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 8, 0, *fields, 0, 0, 0, 0, 0) + b"a"
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 50, 50, 50 * len(central), len(local), 0)
    return local + central * 50 + end


def nested(depth: int) -> bytes:
    data = nifti()
    for _ in range(depth):
        data = zipped(("scan.zip", data))
    return data


def honest_header() -> bytes:
    """Of 64 MiB of zeros, which are voxels within the budget of these."""
    header = bytearray(Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes()[:352])
    struct.pack_into("<8h", header, 40, 3, 512, 512, 256, 1, 1, 1, 1)
    return bytes(header)


def gzip_bomb() -> bytes:
    return gzip.compress(honest_header() + bytes(64 * MIB), 9)


def gzip_members() -> bytes:
    return gzip.compress(honest_header()) + gzip.compress(bytes(MIB), 9) * 64


def gzip_of_gzip() -> bytes:
    return gzip.compress(gzip.compress(gzip.compress(bytes(64 * MIB))))


def deflated_dicom() -> bytes:
    """A DICOM file whose dataset, a hundred megabytes of zeros, is deflated."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, generate_uid()
    one.StudyInstanceUID, one.SeriesInstanceUID, one.Modality = generate_uid(), generate_uid(), "MR"
    one.Rows, one.Columns, one.BitsAllocated, one.SamplesPerPixel = 5000, 10000, 16, 1
    one.PixelData = bytes(100 * MIB)
    buffer = io.BytesIO()
    one.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def deep_dicom() -> bytes:
    """A DICOM file with a sequence in a sequence in a sequence, two hundred thousand of them."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, generate_uid()
    one.StudyInstanceUID, one.SeriesInstanceUID, one.Modality = generate_uid(), generate_uid(), "MR"
    buffer = io.BytesIO()
    one.save_as(buffer, enforce_file_format=True)
    sequence = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return buffer.getvalue() + sequence * 200_000


def large_claim() -> bytes:
    data = bytearray(nifti())
    struct.pack_into("<8h", data, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    return bytes(data)


UNSAFE, BYTES, FILES = "unsafe_archive_path", "too_many_bytes", "too_many_files"
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a path that climbs": (UNSAFE, lambda: climbing(f"../../../../../..{WITNESS}")),
    "an absolute path": (UNSAFE, lambda: climbing(str(WITNESS))),
    "a path of Windows": (UNSAFE, lambda: climbing("..\\..\\scan.nii")),
    "a drive": (UNSAFE, lambda: climbing("C:scan.nii")),
    "a path that climbs in the middle": (UNSAFE, lambda: climbing("a/../../b.nii")),
    "a link": (UNSAFE, lambda: zipped(link("/etc/passwd"))),
    "a link to a folder and a file through it": (UNSAFE, lambda: zipped(link("/tmp"), ("folder/witness", nifti()))),
    "a hundred thousand entries": (FILES, many_entries),
    "a hundred thousand entries that the end denies": (FILES, hidden_entries),
    "a zip in a zip": ("nested_archive", lambda: nested(2)),
    "zips ten deep": ("nested_archive", lambda: nested(10)),
    "entries that overlap": (BYTES, overlapping),
    "a zip of zeros": (BYTES, lambda: zipped(("scan.nii", bytes(200 * MIB)))),
    "a gzip of zeros in a zip": (BYTES, lambda: zipped(("scan.nii.gz", gzip_bomb()))),
    "a gzip of zeros": (BYTES, gzip_bomb),
    "a gzip of many members": (BYTES, gzip_members),
    "a gzip in a gzip in a gzip": ("unknown_format", gzip_of_gzip),
    "a deflated DICOM file": (BYTES, deflated_dicom),
    "sequences without end": ("corrupt_file", deep_dicom),
    "a header that claims 2^45 voxels": ("too_many_voxels", large_claim),
}


def folder_size(folder: Path) -> int:
    sizes = 0
    for path in folder.rglob("*"):
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:
            continue
    return sizes


class TestBombs:
    @pytest.mark.parametrize("kind", BOMBS)
    def test_the_job_ends_with_its_code(self, stack: Any, tmp_path: Path, kind: str) -> None:
        code, make = BOMBS[kind]
        content = make()
        assert len(content) < 8 * MIB
        (tmp_path / "scan").write_bytes(content)
        before, worker = folder_size(stack.data), stack.worker_child().pid
        job = stack.segment(tmp_path / "scan")
        assert (job["state"], job["error"]["code"], job["attempt"]) == ("failed", code, 1), job
        assert stack.worker_child().pid == worker
        assert folder_size(stack.data) - before < len(content) + 8 * MIB
        assert not WITNESS.exists()
        stack.client.delete(f"/jobs/{job['id']}").raise_for_status()

    @pytest.mark.parametrize("make", [deflated_dicom, deep_dicom, many_entries, gzip_bomb])
    def test_sent_by_an_archive_it_is_refused_or_listed(self, stack: Any, make: Callable[[], bytes]) -> None:
        gateway = stack.pid("gateway")
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + make() + b"\r\n--b--\r\n"
        headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
        answer = stack.client.post("/dicomweb/studies", content=body, headers=headers)
        assert answer.status_code in (200, 409), answer.text
        assert stack.client.get("/series").status_code == 200
        assert stack.pid("gateway") == gateway
        assert stack.client.get("/jobs").status_code == 200

    def test_neither_memory_nor_disk_was_taken(self, stack: Any, scan: Path) -> None:
        assert folder_size(stack.data) < DISK
        assert max(one.memory_info().rss for one in stack.family()) < MEMORY
        assert list((stack.data / "blobs" / "tmp").iterdir()) == []
        assert stack.segment(scan)["state"] == "succeeded"

    def test_a_link_in_the_data_folder_is_not_followed_out_of_it(self, stack: Any, scan: Path, tmp_path: Path) -> None:
        """A result that somebody has replaced by a link leaves nothing of elsewhere."""
        job = stack.segment(scan)
        (tmp_path / "secret").write_text("secret")
        (mask,) = (stack.data / "blobs" / "jobs" / job["id"]).glob("result-*/mask.nii.gz")
        mask.unlink()
        mask.symlink_to(tmp_path / "secret")
        stack.client.delete(f"/jobs/{job['id']}").raise_for_status()
        assert (tmp_path / "secret").read_text() == "secret"
