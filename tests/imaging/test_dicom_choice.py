"""Several series in one upload."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import FileDataset

from imaging.dicom_series import read_dicom_series
from imaging.errors import MixedSeriesError, SeriesNotFoundError, SingleSliceError
from imaging.limits import Limits
from imaging.request import Wanted
from imaging.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

Make = Callable[..., list[Path]]
NAME = "Mueller^Anneliese"
MR = Wanted(modalities=("MR",))


@pytest.fixture
def make(tmp_path: Path, wheel_file: Callable[[str], Path]) -> Make:
    """A series of its own: ``count`` slices whose every position is at ``place(number)`` mm."""

    def make(
        series: str, *, modality: str = "MR", count: int = 4, place: Callable[[int], float] = lambda number: 3 * number
    ) -> list[Path]:
        paths = []
        for number in range(count):
            dataset: FileDataset = pydicom.dcmread(wheel_file("MR_small.dcm"))
            dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.5, 0.8]
            dataset.ImagePositionPatient = [0, 0, place(number)]
            dataset.SeriesInstanceUID, dataset.Modality, dataset.PatientName = series, modality, NAME
            dataset.SeriesDescription = NAME
            path = tmp_path / f"{len(list(tmp_path.iterdir())):03}"
            dataset.save_as(path)
            paths.append(path)
        return paths

    return make


def read(paths: Sequence[Path], wanted: Wanted = MR) -> Volume:
    return read_dicom_series(paths, limits=Limits(), wanted=wanted)


class TestChoice:
    def test_the_only_one_of_the_models_modality_is_taken_and_the_rest_is_told(self, make: Make) -> None:
        mr, ct, localizer = make("1.1"), make("1.2", modality="CT"), make("1.3", count=1)
        for order in itertools.permutations((mr, ct, localizer)):
            volume = read([path for group in order for path in group])
            assert set(volume.source) == set(mr)
            assert volume.warnings == ("2 other series left out.",)

    def test_one_whose_slices_fill_no_box_is_not_in_the_way(self, make: Make) -> None:
        mr, broken = make("1.1"), make("1.2", place=lambda number: 0)
        assert set(read([*broken, *mr]).source) == set(mr)

    def test_the_one_that_is_named_is_taken_whatever_its_modality(self, make: Make) -> None:
        mr, ct = make("1.1"), make("1.2", modality="CT")
        volume = read([*mr, *ct], Wanted("1.2", ("MR",)))
        assert (set(volume.source), volume.modality) == (set(ct), "CT")

    def test_a_single_series_need_not_fit_for_the_verdict_says_so(self, make: Make) -> None:
        assert read(make("1.2", modality="CT")).modality == "CT"

    def test_without_any_expectation_the_only_box_is_taken(self, make: Make) -> None:
        mr = make("1.1")
        assert set(read([*mr, *make("1.3", count=1)], Wanted()).source) == set(mr)


class TestRefusals:
    def test_two_that_fit_are_listed_with_nothing_else_of_their_headers(self, make: Make) -> None:
        with pytest.raises(MixedSeriesError) as caught:
            read([*make("1.2.840.1"), *make("1.2.840.2", count=5), *make("1.2.840.3", modality="CT", count=1)])
        detail = str(caught.value)
        for one in ("1.2.840.1 (MR, 4 images)", "1.2.840.2 (MR, 5 images)", "1.2.840.3 (CT, 1 image)", "several"):
            assert one in detail
        assert "Anneliese" not in detail

    def test_so_are_several_of_which_none_fits(self, make: Make) -> None:
        with pytest.raises(MixedSeriesError, match="none of them fits"):
            read([*make("1.1", modality="CT"), *make("1.2", modality="CT")])

    def test_an_identifier_that_is_none_is_not_repeated(self, make: Make) -> None:
        with pytest.raises(MixedSeriesError) as caught:
            read([*make(NAME), *make("1.2")])
        assert "Anneliese" not in str(caught.value)
        assert "one without an identifier (MR, 4 images)" in str(caught.value)

    def test_of_many_only_the_first_are_named(self, make: Make) -> None:
        with pytest.raises(MixedSeriesError, match=r"30 series .* and 10 more$"):
            read([path for number in range(30) for path in make(f"1.{number}", count=1)])

    def test_a_series_that_is_not_there(self, make: Make) -> None:
        with pytest.raises(SeriesNotFoundError, match=r"1\.1 \(MR, 4 images\)"):
            read(make("1.1"), Wanted("1.9"))

    def test_the_one_that_is_named_has_to_be_a_box(self, make: Make) -> None:
        with pytest.raises(SingleSliceError):
            read([*make("1.1"), *make("1.2", count=1)], Wanted("1.2"))
