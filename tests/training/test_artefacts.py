import numpy as np
import pytest
from scipy import ndimage

from imaging.grid import znormalise
from imaging.volume import Volume
from training.artefacts import CLEAN, KINDS, PAPER, SEVERITIES, Condition, degrade

MOVING = ("crop", "orientation")
"""Kinds that move the label with the scan."""
FIXED = tuple(kind for kind in KINDS if kind not in MOVING)
DRAWN = ("noise", "spike", "ghosting", "motion", "bias", "crop")
"""Kinds with so much chance in them that two seeds hardly give the same."""
EVERY = [Condition(kind, severity) for kind in KINDS for severity in SEVERITIES]
TRUTH = np.zeros((2, 16, 18, 20), bool)
TRUTH[0, 3:9, 4:11, 5:12] = True
TRUTH[1, 9:13, 6:11, 4:9] = True


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scan() -> Volume:
    """Two bright boxes in smooth noise."""
    noise = ndimage.gaussian_filter(rng(1).normal(0, 3, TRUTH.shape[1:]), 1.0)
    return Volume((200 + 100 * TRUTH[0] + 60 * TRUTH[1] + 20 * noise).astype(np.float32), np.eye(4))


def degraded(condition: Condition, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    volume, truth = degrade(scan(), TRUTH, condition, rng=rng(seed))
    return volume.array, truth


def distance(condition: Condition) -> float:
    """How far a degraded scan is from the clean one, whatever its brightness and contrast; over several draws."""
    clean = znormalise(scan().array)
    return float(np.mean([np.abs(znormalise(degraded(condition, seed=seed)[0]) - clean) for seed in range(6)]))


class TestCondition:
    def test_names_itself(self) -> None:
        assert (str(Condition(CLEAN)), str(Condition("bias", 4))) == ("clean", "bias 4")

    def test_the_papers_are_noise_spike_and_ghosting_in_the_middle(self) -> None:
        assert [str(one) for one in PAPER] == ["noise 3", "spike 3", "ghosting 3"]


class TestDegrade:
    def test_a_clean_scan_is_left_as_it_is(self) -> None:
        volume = scan()
        assert degrade(volume, TRUTH, Condition(CLEAN), rng=rng()) == (volume, TRUTH)

    def test_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(KeyError):
            degrade(scan(), TRUTH, Condition("gremlin", 1), rng=rng())

    @pytest.mark.parametrize("condition", EVERY, ids=str)
    def test_every_kind_at_every_severity_changes_the_scan_and_stays_a_scan(self, condition: Condition) -> None:
        array, truth = degraded(condition)
        assert array.dtype == np.float32
        assert truth.dtype == np.bool_
        assert array.shape == truth.shape[1:]
        assert np.isfinite(array).all()
        assert array.shape != TRUTH.shape[1:] or not np.allclose(znormalise(array), znormalise(scan().array), atol=1e-3)

    @pytest.mark.parametrize("condition", EVERY, ids=str)
    def test_the_same_draw_gives_the_same_scan(self, condition: Condition) -> None:
        for first, second in zip(degraded(condition, seed=3), degraded(condition, seed=3), strict=True):
            np.testing.assert_array_equal(first, second)

    @pytest.mark.parametrize("kind", DRAWN)
    def test_another_draw_gives_another(self, kind: str) -> None:
        scans = [degraded(Condition(kind, 3), seed=seed)[0] for seed in range(8)]
        assert len({one.tobytes() for one in scans}) > 1

    @pytest.mark.parametrize("kind", FIXED)
    def test_a_change_of_intensities_leaves_the_labels(self, kind: str) -> None:
        for severity in SEVERITIES:
            np.testing.assert_array_equal(degraded(Condition(kind, severity))[1], TRUTH)

    @pytest.mark.parametrize("kind", [kind for kind in FIXED if kind != "contrast"])
    def test_the_severest_is_further_from_the_clean_scan_than_the_mildest(self, kind: str) -> None:
        assert distance(Condition(kind, 5)) > 1.3 * distance(Condition(kind, 1))

    @pytest.mark.parametrize("kind", MOVING)
    @pytest.mark.parametrize("severity", SEVERITIES)
    def test_what_moves_voxels_moves_the_labels_along(self, kind: str, severity: int) -> None:
        image = Volume(TRUTH[0].astype(np.float32), np.eye(4))  # the scan is its own label
        for seed in range(6):
            volume, truth = degrade(image, TRUTH, Condition(kind, severity), rng=rng(seed))
            np.testing.assert_array_equal(volume.array > 0, truth[0])
            assert truth.shape[1:] == volume.array.shape

    def test_the_scan_that_was_given_is_not_touched(self) -> None:
        volume, truth = scan(), TRUTH.copy()
        before = volume.array.copy()
        for condition in EVERY:
            degrade(volume, truth, condition, rng=rng())
        np.testing.assert_array_equal(volume.array, before)
        np.testing.assert_array_equal(truth, TRUTH)

    def test_the_affine_is_kept(self) -> None:
        affine = np.diag([-1.0, 2.0, 1.5, 1.0])
        for condition in EVERY:
            volume, _ = degrade(Volume(scan().array, affine), TRUTH, condition, rng=rng())
            np.testing.assert_array_equal(volume.affine, affine)


class TestNoise:
    @pytest.mark.parametrize(("severity", "deviation"), [(1, 0.125), (3, 0.5), (5, 2.0)])
    def test_has_the_papers_deviation_in_units_of_the_scans_own(self, severity: int, deviation: float) -> None:
        array, _ = degraded(Condition("noise", severity))
        assert (array - znormalise(scan().array)).std() == pytest.approx(deviation, rel=0.05)


class TestCrop:
    @pytest.mark.parametrize(("severity", "share"), [(1, 0.1), (3, 0.3), (5, 0.5)])
    def test_takes_its_share_of_one_axis(self, severity: int, share: float) -> None:
        for seed in range(5):
            array, _ = degraded(Condition("crop", severity), seed=seed)
            (lost,) = [(n, n - m) for n, m in zip(TRUTH.shape[1:], array.shape, strict=True) if n != m]
            assert lost[1] == round(share * lost[0])

    def test_every_side_can_be_missing(self) -> None:
        marked = np.zeros((1, 10, 10, 10), bool)
        marked[0, 4:6, 4:6, 4:6] = True
        image = Volume(np.indices((10, 10, 10)).sum(0).astype(np.float32), np.eye(4))
        boxes = [degrade(image, marked, Condition("crop", 2), rng=rng(seed))[1] for seed in range(60)]
        assert len({(box.shape, tuple(np.argwhere(box[0])[0])) for box in boxes}) == 6


class TestOrientation:
    @pytest.mark.parametrize(("severity", "axis"), [(1, 0), (2, 1), (3, 2)])
    def test_the_first_three_mirror_an_axis(self, severity: int, axis: int) -> None:
        array, truth = degraded(Condition("orientation", severity))
        np.testing.assert_array_equal(array, np.flip(znormalise(scan().array), axis))
        np.testing.assert_array_equal(truth, np.flip(TRUTH, axis + 1))

    @pytest.mark.parametrize(("severity", "kept"), [(4, 0), (5, 2)])
    def test_the_last_two_turn_about_an_axis(self, severity: int, kept: int) -> None:
        array, _ = degraded(Condition("orientation", severity))
        turned = [axis for axis in range(3) if axis != kept]
        assert array.shape[kept] == TRUTH.shape[1:][kept]
        assert [array.shape[axis] for axis in turned] == [TRUTH.shape[1:][axis] for axis in reversed(turned)]


class TestContrast:
    def test_what_was_brightest_becomes_dark(self) -> None:
        clean = scan().array
        array, _ = degraded(Condition("contrast", 4))  # folded at the median
        assert array[clean > np.quantile(clean, 0.95)].mean() < np.median(array)


class TestAnisotropy:
    def test_neighbours_along_one_axis_become_alike(self) -> None:
        noise = Volume(rng(2).normal(size=(24, 24, 24)).astype(np.float32), np.eye(4))
        truth = np.zeros((1, 24, 24, 24), bool)
        array = degrade(noise, truth, Condition("anisotropy", 4), rng=rng())[0].array
        steps = sorted(float(np.abs(np.diff(array, axis=axis)).mean()) for axis in range(3))
        assert steps[0] < 0.5 * steps[1]
