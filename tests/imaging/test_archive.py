from __future__ import annotations

import contextlib
import io
import stat
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging.archive import extract_zip, is_zip
from imaging.errors import (
    CorruptFileError,
    EmptyFileError,
    EncryptedArchiveError,
    ImagingError,
    NestedArchiveError,
    TooManyBytesError,
    TooManyFilesError,
    TruncatedFileError,
    UnknownFormatError,
    UnsafeArchivePathError,
)
from imaging.limits import Limits

Entries = dict[str, bytes]
NOISE = np.random.default_rng(5).integers(0, 40, 20_000, dtype=np.uint8).tobytes()


def zip_bytes(entries: Entries, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def entry_bytes(entry: zipfile.ZipInfo) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(entry, b"target")
    return buffer.getvalue()


def extract(folder: Path, data: bytes, limits: Limits | None = None) -> list[bytes]:
    path = folder / "upload"
    path.write_bytes(data)
    written = extract_zip(path, folder / "out", limits=limits or Limits())
    assert [file.name for file in written] == [f"{number:04}" for number in range(len(written))]
    assert sorted((folder / "out").iterdir()) == written
    return [file.read_bytes() for file in written]


class TestExtractZip:
    @pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_files_come_out_numbered_in_the_order_of_the_archive(self, tmp_path: Path, method: int) -> None:
        assert extract(tmp_path, zip_bytes({"z/DOE^JANE.dcm": b"one", "a": NOISE}, method)) == [b"one", NOISE]

    def test_folders_and_what_file_managers_leave_are_skipped(self, tmp_path: Path) -> None:
        entries = {"s/": b"", "__MACOSX/s/._a": b"x", "s/.DS_Store": b"x", "s/Thumbs.db": b"x", "s/a": b"voxels"}
        assert extract(tmp_path, zip_bytes(entries)) == [b"voxels"]

    def test_two_entries_of_one_name_are_two_files(self, tmp_path: Path) -> None:
        data = zip_bytes({"a": b"1", "b": b"2"}).replace(b"b", b"a")
        assert extract(tmp_path, data) == [b"1", b"2"]

    @pytest.mark.parametrize("data", [zip_bytes({}), zip_bytes({"folder/": b""})])
    def test_an_archive_without_files_is_empty(self, tmp_path: Path, data: bytes) -> None:
        with pytest.raises(EmptyFileError):
            extract(tmp_path, data)


class TestUnsafeArchives:
    @pytest.mark.parametrize(
        "name", ["../a", "a/../../b", "/etc/passwd", "..\\a", "a\\..\\..\\b", "\\a", "C:\\a", "c:/a", "//host/a", ".."]
    )
    def test_a_path_out_of_the_archive_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UnsafeArchivePathError):
            extract(tmp_path, zip_bytes({"good": b"x", name: b"x"}))
        assert not list((tmp_path / "out").iterdir())

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
    def test_a_link_or_device_is_refused(self, tmp_path: Path, kind: int) -> None:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (kind | 0o777) << 16
        with pytest.raises(UnsafeArchivePathError):
            extract(tmp_path, entry_bytes(entry))

    def test_a_dotted_name_inside_the_archive_is_fine(self, tmp_path: Path) -> None:
        assert extract(tmp_path, zip_bytes({"1.2.840..1/.a": b"x"})) == [b"x"]

    def test_an_encrypted_entry_is_refused(self, tmp_path: Path) -> None:
        data = bytearray(zip_bytes({"a": b"secret"}))
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
        with pytest.raises(EncryptedArchiveError):
            extract(tmp_path, bytes(data))

    @pytest.mark.parametrize("inner", [zip_bytes({"a": NOISE}), zip_bytes({})])
    def test_an_archive_in_an_archive_is_refused(self, tmp_path: Path, inner: bytes) -> None:
        with pytest.raises(NestedArchiveError):
            extract(tmp_path, zip_bytes({"scan.dcm": inner}))

    @pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
    def test_another_compression_than_deflate_is_refused(self, tmp_path: Path, method: int) -> None:
        with pytest.raises(UnknownFormatError):
            extract(tmp_path, zip_bytes({"a": NOISE}, method))


class TestBounds:
    def test_a_bomb_stops_at_the_limit_with_little_memory(self, tmp_path: Path) -> None:
        data = zip_bytes({f"{number}": bytes(30_000_000) for number in range(4)})
        tracemalloc.start()
        try:
            with pytest.raises(TooManyBytesError):
                extract(tmp_path, data, Limits(unpacked_bytes=50_000_000))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8_000_000
        assert sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) <= 50_000_000

    def test_a_bomb_that_lies_about_its_size_is_refused(self, tmp_path: Path) -> None:
        data = bytearray(zip_bytes({"a": bytes(5_000_000)}))
        struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 10)
        with pytest.raises(CorruptFileError):
            extract(tmp_path, bytes(data))
        assert (tmp_path / "out" / "0000").stat().st_size <= 10

    def test_entries_over_one_another_are_counted_each_time(self, tmp_path: Path) -> None:
        one = zip_bytes({"a": bytes(1000)})
        start = one.index(b"PK\x01\x02")
        end = one.index(b"PK\x05\x06")
        directory = one[start:end] * 10
        tail = bytearray(one[end:])
        struct.pack_into("<2HI", tail, 8, 10, 10, len(directory))
        with pytest.raises(ImagingError) as caught:
            extract(tmp_path, one[:start] + directory + tail, Limits(unpacked_bytes=5000))
        assert type(caught.value) in (TooManyBytesError, CorruptFileError)

    def test_the_limits_are_inclusive(self, tmp_path: Path) -> None:
        data = zip_bytes({"a": b"12", "b": b"345"})
        assert extract(tmp_path, data, Limits(files=2, unpacked_bytes=5)) == [b"12", b"345"]

    def test_one_file_too_many_is_refused_before_any_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(TooManyFilesError):
            extract(tmp_path, zip_bytes({"a": b"12", "b": b"345"}), Limits(files=1))
        assert not list((tmp_path / "out").iterdir())

    def test_a_directory_of_many_entries_is_refused_before_it_is_read(self, tmp_path: Path) -> None:
        data = zip_bytes({f"{number}/": b"" for number in range(500)})
        with pytest.raises(TooManyFilesError):
            extract(tmp_path, data, Limits(files=10))
        assert not (tmp_path / "out").exists()


class TestDamage:
    def test_a_cut_archive_is_truncated(self, tmp_path: Path) -> None:
        with pytest.raises(TruncatedFileError):
            extract(tmp_path, zip_bytes({"a": NOISE})[:-500])

    def test_a_wrong_crc_is_corrupt(self, tmp_path: Path) -> None:
        data = bytearray(zip_bytes({"a": NOISE}, zipfile.ZIP_STORED))
        data[1000] ^= 1
        with pytest.raises(CorruptFileError):
            extract(tmp_path, bytes(data))

    def test_a_flipped_bit_is_refused_or_changes_no_byte(self, tmp_path: Path) -> None:
        intact = zip_bytes({"a": NOISE[:500], "b": b"x" * 30})
        for bit in range(8 * len(intact)):
            data = bytearray(intact)
            data[bit // 8] ^= 1 << (bit % 8)
            folder = tmp_path / f"{bit}"
            folder.mkdir()
            try:
                files = extract(folder, bytes(data))
            except ImagingError:
                continue
            assert set(files) <= {NOISE[:500], b"x" * 30}

    @given(st.binary(max_size=300), st.integers(0, 400), st.binary(max_size=40))
    def test_no_bytes_raise_another_error(self, data: bytes, at: int, patch: bytes) -> None:
        intact = zip_bytes({"a": b"x" * 60, "folder/b": NOISE[:80]})
        for content in (data, intact[:at] + patch + intact[at + len(patch) :]):
            with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ImagingError):
                assert sum(map(len, extract(Path(folder), content))) <= 1000


class TestDirectory:
    """No checksum covers the directory, and what is lost from it would be slices of a series."""

    def fields(self, data: bytes | bytearray) -> tuple[int, int]:
        """Where the last entry of the directory is, and the end record."""
        return data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")

    def test_an_entry_that_is_missing_is_told_by_the_end_record(self, tmp_path: Path) -> None:
        data = zip_bytes({"1": b"one", "2": b"two"})
        entry, end = self.fields(data)
        (size,) = struct.unpack("<L", data[end + 12 : end + 16])
        shorter = data[end : end + 12] + struct.pack("<L", size - (end - entry)) + data[end + 16 :]
        with pytest.raises(CorruptFileError):
            extract(tmp_path, data[:entry] + shorter)

    def test_a_file_that_a_flipped_bit_makes_a_folder_is_not_left_out(self, tmp_path: Path) -> None:
        data = bytearray(zip_bytes({"a1": b"one", "a2": b"two"}))
        data[self.fields(data)[0] + 47] = ord("/")
        with pytest.raises(CorruptFileError):
            extract(tmp_path, bytes(data))

    def test_a_size_that_lies_is_corrupt_though_the_crc_holds(self, tmp_path: Path) -> None:
        data = bytearray(zip_bytes({"1": b"one"}))
        at = self.fields(data)[0] + 24
        data[at : at + 4] = b"\xff" * 4
        with pytest.raises(CorruptFileError):
            extract(tmp_path, bytes(data))

    @pytest.mark.parametrize("claimed", [1, 2])
    def test_a_count_of_64_bits_is_taken_where_there_is_one(self, tmp_path: Path, claimed: int) -> None:
        data = zip_bytes({"1": b"one"})
        entry, end = self.fields(data)
        record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, claimed, claimed, end - entry, entry)
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
        ones = b"PK\x05\x06" + b"\0" * 4 + b"\xff" * 12 + b"\0" * 2
        archive = data[:end] + record + locator + ones
        if claimed == 1:
            assert extract(tmp_path, archive) == [b"one"]
            return
        with pytest.raises(CorruptFileError):
            extract(tmp_path, archive)


class TestIsZip:
    def test_content_decides_and_not_the_name(self, tmp_path: Path) -> None:
        (tmp_path / "scan.nii").write_bytes(zip_bytes({"a": b"x"}))
        (tmp_path / "scan.zip").write_bytes(b"text")
        assert is_zip(tmp_path / "scan.nii")
        assert not is_zip(tmp_path / "scan.zip")
