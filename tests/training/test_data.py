from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from imaging.nifti import write_nifti
from training.config import TrainingConfig
from training.data import find_cases, folds, load_case, load_cases
from training.errors import NoTrainingDataError

TinyConfig = Callable[..., TrainingConfig]


class TestFindCases:
    def test_pairs_scans_with_labels_of_the_same_name(self, ball_folder: Path) -> None:
        pairs = find_cases(ball_folder)
        assert len(pairs) == 16
        assert all(image.name == label.name for image, label in pairs)
        assert [image.name for image, _ in pairs] == sorted(image.name for image, _ in pairs)

    def test_a_scan_without_a_label_is_left_out(self, tmp_path: Path) -> None:
        for name in "abcde":
            for folder in ("imagesTr", "labelsTr"):
                (tmp_path / folder).mkdir(exist_ok=True)
                (tmp_path / folder / f"{name}.nii.gz").touch()
        (tmp_path / "labelsTr" / "b.nii.gz").unlink()
        assert [image.name[0] for image, _ in find_cases(tmp_path)] == ["a", "c", "d", "e"]
        (tmp_path / "labelsTr" / "c.nii.gz").unlink()
        with pytest.raises(NoTrainingDataError):
            find_cases(tmp_path)


class TestLoadCase:
    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[Path, Path]:
        """A scan with labels 1 and 2 in boxes, of 2 mm slices."""
        affine = np.diag([1.0, 1.0, 2.0, 1.0])
        labels = np.zeros((12, 12, 8), np.uint8)
        labels[2:6, 3:9, 2:6], labels[6:9, 3:9, 2:6] = 1, 2
        image, label = tmp_path / "image.nii.gz", tmp_path / "label.nii.gz"
        write_nifti(image, np.random.default_rng(0).normal(500, 20, labels.shape).astype(np.float32), affine)
        write_nifti(label, labels, affine)
        return image, label

    def test_the_labels_of_a_segment_are_merged(self, pair: tuple[Path, Path], tiny_config: TinyConfig) -> None:
        case = load_case(*pair, config=tiny_config())  # the ball is made of labels 1 and 2
        assert case.truth.shape == (1, 12, 12, 8)
        assert case.truth.sum() == 7 * 6 * 4

    def test_every_segment_has_its_own_truth(self, pair: tuple[Path, Path], tiny_config: TinyConfig) -> None:
        config = tiny_config()
        (one,) = config.segments
        segments = tuple(one.model_copy(update={"name": str(label), "labels": (label,)}) for label in (2, 1))
        case = load_case(*pair, config=config.model_copy(update={"segments": segments}))
        assert case.truth.sum(axis=(1, 2, 3)).tolist() == [3 * 6 * 4, 4 * 6 * 4]

    def test_of_a_scan_with_several_volumes_the_chosen_one_is_read(
        self, pair: tuple[Path, Path], tiny_config: TinyConfig
    ) -> None:
        image, label = pair
        single = Nifti1Image.from_filename(image)
        first = np.asarray(single.dataobj)
        Nifti1Image(np.stack([first[::-1], first], axis=3), single.affine).to_filename(image)
        config = tiny_config()
        config = config.model_copy(update={"model": config.model.model_copy(update={"volumes": (1,)})})
        np.testing.assert_allclose(load_case(image, label, config=config).volume.array, first)
        both = config.model_copy(update={"model": config.model.model_copy(update={"volumes": (1, 0)})})
        channels = load_case(image, label, config=both).image
        np.testing.assert_allclose(channels[0][::-1], channels[1], atol=1e-5)
        assert both.network().inputs == 2

    def test_image_and_target_lie_on_the_models_grid(self, pair: tuple[Path, Path], tiny_config: TinyConfig) -> None:
        case = load_case(*pair, config=tiny_config())
        assert case.image.shape[1:] == case.target.shape[1:] == (12, 12, 16)
        assert (case.image.mean(), case.image.std()) == (pytest.approx(0, abs=1e-4), pytest.approx(1, abs=1e-4))
        assert set(np.unique(case.target)) == {0.0, 1.0}
        assert case.target.sum() == pytest.approx(2 * 7 * 6 * 4, rel=0.2)

    def test_a_label_of_another_grid_is_refused(self, pair: tuple[Path, Path], tiny_config: TinyConfig) -> None:
        write_nifti(pair[1], np.zeros((12, 12, 9), np.uint8), np.eye(4))
        with pytest.raises(NoTrainingDataError, match=r"image\.nii\.gz"):
            load_case(*pair, config=tiny_config())


class TestFolds:
    def test_every_scan_is_held_out_once_and_trained_on_by_the_others(
        self, ball_folder: Path, tiny_config: TinyConfig
    ) -> None:
        config = tiny_config()
        cases = load_cases(ball_folder, config=config)
        found = folds(cases, config=config)
        assert [fold.index for fold in found] == [0, 1, 2, 3]
        assert sorted(case.name for fold in found for case in fold.held_out) == sorted(case.name for case in cases)
        for fold in found:
            assert {case.name for case in chain(fold.training, fold.held_out)} == {case.name for case in cases}
            assert (len(fold.training), len(fold.held_out)) == (12, 4)

    def test_parts_of_a_number_that_does_not_divide_differ_by_one(
        self, ball_folder: Path, tiny_config: TinyConfig
    ) -> None:
        config = tiny_config().model_copy(update={"folds": 3})
        found = folds(load_cases(ball_folder, config=config), config=config)
        assert sorted(len(fold.held_out) for fold in found) == [5, 5, 6]

    def test_the_seed_decides_and_not_the_order_of_the_files_alone(
        self, ball_folder: Path, tiny_config: TinyConfig
    ) -> None:
        config = tiny_config()
        cases = load_cases(ball_folder, config=config)
        first, again, other = (
            [[case.name for case in fold.held_out] for fold in folds(cases, config=one)]
            for one in (config, config, config.model_copy(update={"seed": 4}))
        )
        assert first == again
        assert first != other

    def test_fewer_scans_than_folds_are_refused(self, ball_folder: Path, tiny_config: TinyConfig) -> None:
        config = tiny_config()
        with pytest.raises(NoTrainingDataError, match="3 scans are of too few patients for 4 folds"):
            folds(load_cases(ball_folder, config=config)[:3], config=config)

    def test_scans_of_one_patient_are_never_on_both_sides(self, ball_folder: Path, tiny_config: TinyConfig) -> None:
        config = tiny_config().model_copy(update={"patient": r"\d$"})  # the last digit: few patients with several scans
        cases = [replace(case, name=case.name.split(".")[0]) for case in load_cases(ball_folder, config=config)]
        patients = Counter(case.name[-1] for case in cases)
        assert len(patients) == 10
        assert max(patients.values()) > 1
        for fold in folds(cases, config=config):
            held_out, trained = ({case.name[-1] for case in part} for part in (fold.held_out, fold.training))
            assert held_out
            assert not held_out & trained

    def test_fewer_patients_than_folds_are_refused(self, ball_folder: Path, tiny_config: TinyConfig) -> None:
        config = tiny_config().model_copy(update={"patient": "^."})
        with pytest.raises(NoTrainingDataError, match="16 scans are of too few patients"):
            folds(load_cases(ball_folder, config=config), config=config)
