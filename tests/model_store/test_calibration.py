from dataclasses import replace

import pytest

from model_store.calibration import CalibrationRow, calibrated, decode, encode

ROW = CalibrationRow(structure=0, scan="b.nii.gz", condition="clean", predicted=0.91, dice=0.93, refused=False)
ROWS = [
    ROW,
    replace(ROW, condition="spike 3", predicted=0.5, dice=0.25, refused=True),
    replace(ROW, scan="a.nii.gz", predicted=0.88, dice=0.8),
    replace(ROW, structure=1, scan="a.nii.gz", predicted=0.0, dice=0.0, refused=True),
]


class TestCalibrationFile:
    def test_survives_the_way_there_and_back(self) -> None:
        first, second = decode(encode(ROWS), structures=2)
        assert first.predicted.tolist() == [0.91, 0.5, 0.88]
        assert first.dice.tolist() == [0.93, 0.25, 0.8]
        assert first.refused.tolist() == [False, True, False]
        assert first.scan.tolist() == [0, 0, 1]
        assert (second.predicted.tolist(), second.refused.tolist()) == ([0.0], [True])

    def test_is_a_table_that_anybody_can_read(self) -> None:
        header, first, second, *_ = encode(ROWS).decode().splitlines()
        assert header == "structure,scan,condition,predicted,dice,refused"
        assert first == "0,b.nii.gz,clean,0.9100,0.9300,0"
        assert second == "0,b.nii.gz,spike 3,0.5000,0.2500,1"

    def test_a_scans_name_may_hold_anything(self) -> None:
        rows = [replace(ROW, scan=name) for name in ('a, "b"\nc.nii', "a", 'a, "b"\nc.nii')]
        (found,) = decode(encode(rows), structures=1)
        assert found.scan.tolist() == [0, 1, 0]

    def test_the_same_rows_are_the_same_bytes(self) -> None:
        assert encode(ROWS) == encode(list(ROWS))

    def test_a_structure_without_outcomes_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no outcomes"):
            decode(encode(ROWS), structures=3)

    def test_a_file_with_other_columns_is_refused(self) -> None:
        with pytest.raises(ValueError, match="columns"):
            decode(encode(ROWS).replace(b"predicted", b"guessed"), structures=2)

    def test_a_row_that_is_cut_short_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not such"):
            decode(encode(ROWS) + b"0,a.nii.gz\n", structures=2)

    def test_a_field_without_end_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not such"):
            decode(encode([replace(ROW, scan="x" * 200_000)]), structures=1)

    def test_a_file_that_is_no_text_is_refused(self) -> None:
        with pytest.raises(ValueError, match="decode"):
            decode(b"\xff\xfe", structures=1)


class TestCalibrated:
    @pytest.mark.parametrize("row", [replace(ROW, dice=float("nan")), replace(ROW, predicted=float("inf"))])
    def test_a_figure_that_is_not_finite_is_refused(self, row: CalibrationRow) -> None:
        with pytest.raises(ValueError, match="not finite"):
            calibrated([ROW, row])

    def test_scans_are_told_apart_by_name(self) -> None:
        rows = [replace(ROW, scan=name) for name in "cacb"]
        assert calibrated(rows).scan.tolist() == [0, 1, 0, 2]
