import numpy as np
import pytest

from training.augment import Spacing, augment, crop
from training.config import AugmentationSection

OFF = AugmentationSection(flip=(0, 0, 0), deformed=0, scale=0, shift=0, gamma=0, bias=0, blur=0, noise=0)
CUBES = (1.0, 1.0, 1.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def deforming(*, rotation: float = 0.0, zoom: float = 0.0, elastic: float = 0.0) -> AugmentationSection:
    return OFF.model_copy(update={"deformed": 1.0, "rotation": rotation, "zoom": zoom, "elastic": elastic})


def alone(
    image: np.ndarray, target: np.ndarray, *, section: AugmentationSection, spacing: Spacing, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`augment` of a scan of one channel (x, y, z)."""
    (changed,), target = augment(image[None], target, section=section, spacing=spacing, rng=rng)
    return changed, target


class TestChannels:
    image = np.random.default_rng(2).normal(size=(2, 6, 7, 8)).astype(np.float32)

    def test_shapes_change_alike_and_intensities_each_for_itself(self) -> None:
        image = np.stack([self.image[0], self.image[0]])
        section = OFF.model_copy(update={"flip": (1, 0, 1), "deformed": 1.0})
        moved, _ = augment(image, image, section=section, spacing=CUBES, rng=rng())
        np.testing.assert_array_equal(moved[0], moved[1])
        changed, _ = augment(image, image, section=OFF.model_copy(update={"shift": 0.5}), spacing=CUBES, rng=rng())
        shifts = (changed - image).reshape(2, -1)
        assert np.ptp(shifts, axis=1).max() < 1e-5
        assert abs(shifts[0, 0] - shifts[1, 0]) > 0.01

    def test_are_cut_alike(self) -> None:
        cut, target = crop(self.image, self.image, size=(4, 9, 4), rng=rng())
        assert cut.shape == (2, 4, 9, 4)
        np.testing.assert_array_equal(cut, target)


class TestCrop:
    def test_cuts_image_and_target_alike(self) -> None:
        image = np.arange(6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8)
        cut, target = crop(image[None], np.stack([image, -image]), size=(4, 4, 4), rng=rng())
        assert cut.shape == (1, 4, 4, 4)
        np.testing.assert_array_equal(target, np.concatenate([cut, -cut]))

    def test_reflects_a_scan_that_is_too_small(self) -> None:
        image = np.arange(4, dtype=np.float32).reshape(4, 1, 1) * np.ones((1, 4, 4), np.float32)
        cut, _ = crop(image[None], image[None], size=(6, 4, 4), rng=rng())
        assert cut[0, :, 0, 0].tolist() == [1, 0, 1, 2, 3, 2]


class TestAugment:
    image = np.random.default_rng(1).normal(size=(5, 6, 7)).astype(np.float32)
    target = (image > 0).astype(np.float32)[None]

    def test_does_nothing_when_all_is_off(self) -> None:
        image, target = alone(self.image, self.target, section=OFF, spacing=CUBES, rng=rng())
        np.testing.assert_allclose(image, self.image, atol=1e-5)
        np.testing.assert_array_equal(target, self.target)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_flips_image_and_target_together(self, axis: int) -> None:
        flip = [0.0, 0.0, 0.0]
        flip[axis] = 1.0
        section = OFF.model_copy(update={"flip": tuple(flip)})
        image, target = alone(self.image, self.target, section=section, spacing=CUBES, rng=rng())
        np.testing.assert_allclose(image, np.flip(self.image, axis), atol=1e-5)
        np.testing.assert_array_equal(target, np.flip(self.target, axis + 1))

    def test_intensity_changes_leave_the_target_alone(self) -> None:
        section = AugmentationSection(flip=(0, 0, 0))
        image, target = alone(self.image, self.target, section=section, spacing=CUBES, rng=rng())
        assert image.dtype == np.float32
        assert not np.allclose(image, self.image, atol=1e-2)
        np.testing.assert_array_equal(target, self.target)

    def test_the_same_draw_gives_the_same_crop(self) -> None:
        section = AugmentationSection(deformed=1.0, bias=0.3, blur=1.0)
        first, second, other = (
            alone(self.image, self.target, section=section, spacing=CUBES, rng=rng(seed)) for seed in (3, 3, 4)
        )
        for one, two in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, two)
        assert not np.allclose(first[0], other[0], atol=1e-2)


class Ball:
    """A bright ball in a crop of voxels that are twice as long in z: 32 x 32 x 32 mm."""

    spacing = (1.0, 1.0, 2.0)
    shape = (32, 32, 16)

    def __init__(self, offset: tuple[float, float, float] = (0.0, 0.0, 0.0), radius: float = 5.0) -> None:
        inside = ((self.positions() - np.array(offset)) ** 2).sum(-1) < radius**2
        self.image = inside.astype(np.float32)
        self.target = self.image[None]

    @classmethod
    def positions(cls) -> np.ndarray:
        """(x, y, z, 3): mm from the middle of the crop."""
        axes = [(np.arange(n) + 0.5) * s - n * s / 2 for n, s in zip(cls.shape, cls.spacing, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def augmented(self, section: AugmentationSection, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return alone(self.image, self.target, section=section, spacing=self.spacing, rng=rng(seed))

    def points(self, section: AugmentationSection, seed: int) -> np.ndarray:
        """(n, 3): where the ball is after it, in mm; without the mirrored copies that come in at the corners."""
        points = np.asarray(self.positions()[self.augmented(section, seed)[1][0] > 0])
        return np.asarray(points[np.linalg.norm(points, axis=1) < self.shape[0] / 2])


class TestDeformation:
    @pytest.mark.parametrize(
        "section",
        [deforming(rotation=40.0), deforming(zoom=0.3), deforming(elastic=2.0), deforming(rotation=20, zoom=0.2)],
        ids=["rotation", "zoom", "elastic", "two at once"],
    )
    def test_moves_image_and_target_together(self, section: AugmentationSection) -> None:
        ball = Ball((5.0, -3.0, 4.0))
        for seed in range(5):
            image, target = ball.augmented(section, seed)
            assert image.shape == ball.shape
            assert set(np.unique(target)) == {0.0, 1.0}
            assert np.mean((image > 0.5) != (target[0] > 0)) < 0.001
            assert not np.array_equal(target, ball.target)

    def test_every_segment_moves_alike(self) -> None:
        ball = Ball((5.0, -3.0, 4.0))
        both = np.concatenate([ball.target, 1 - ball.target])
        section = deforming(rotation=40.0, elastic=1.0)
        _, target = alone(ball.image, both, section=section, spacing=ball.spacing, rng=rng())
        assert np.mean(target.sum(0) != 1.0) < 0.001

    @pytest.mark.parametrize("offset", [(7.0, 0.0, 0.0), (0.0, 0.0, 7.0), (4.0, 4.0, -4.0)])
    def test_a_rotation_keeps_distance_size_and_shape_in_millimetres(self, offset: tuple[float, float, float]) -> None:
        ball = Ball(offset)
        before, turns = ball.points(OFF, 0), []
        for seed in range(6):
            points = ball.points(deforming(rotation=45.0), seed)
            assert np.linalg.norm(points.mean(0)) == pytest.approx(np.linalg.norm(before.mean(0)), abs=0.2)
            assert len(points) == pytest.approx(len(before), rel=0.06)
            lengths = np.sqrt(np.linalg.eigvalsh(np.cov(points.T)))
            assert lengths.max() < 1.15 * lengths.min()  # still a ball
            cosine = points.mean(0) @ before.mean(0) / np.linalg.norm(points.mean(0)) / np.linalg.norm(before.mean(0))
            turns.append(np.degrees(np.arccos(cosine)))
        assert max(turns) > 15.0

    def test_a_zoom_scales_about_the_middle_by_up_to_its_bound(self) -> None:
        ball = Ball((4.0, 0.0, 4.0), radius=6.0)
        before = ball.points(OFF, 0)
        factors = []
        for seed in range(12):
            points = ball.points(deforming(zoom=0.25), seed)
            factor = np.cbrt(len(points) / len(before))
            np.testing.assert_allclose(points.mean(0), factor * before.mean(0), atol=0.35)
            factors.append(factor)
        assert 0.72 < min(factors) < 0.9
        assert 1.1 < max(factors) < 1.28

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_control_points_move_by_so_many_millimetres_along_every_axis(self, axis: int) -> None:
        """In a scan whose brightness is the place itself, what is read off is how far it was moved."""
        places = Ball.positions()[..., axis].astype(np.float32)
        section = deforming(elastic=1.0)
        moves = []
        for seed in range(30):
            image, _ = alone(places, places[None], section=section, spacing=Ball.spacing, rng=rng(seed))
            moves.append((image - places)[8:-8, 8:-8, 4:-4])  # far from the border, where the crop is mirrored
        # between control points the moves of eight are averaged, which leaves 0.3 to 1 of the variance
        assert 0.5 < np.std(moves) < 1.0
        assert np.mean(moves) == pytest.approx(0.0, abs=0.2)

    def test_a_bend_is_smooth(self) -> None:
        places = Ball.positions()[..., 0].astype(np.float32)
        image, _ = alone(places, places[None], section=deforming(elastic=1.0), spacing=Ball.spacing, rng=rng())
        moves = (image - places)[8:-8, 8:-8, 4:-4]
        assert max(np.abs(np.diff(moves, axis=axis)).max() for axis in range(3)) < 1.0

    def test_happens_to_the_share_that_was_asked_for(self) -> None:
        ball = Ball((5.0, -3.0, 4.0))
        section = deforming(rotation=40.0).model_copy(update={"deformed": 0.25})
        moved = [not np.array_equal(ball.augmented(section, seed)[1], ball.target) for seed in range(80)]
        assert 10 <= sum(moved) <= 30

    def test_bounds_of_zero_move_nothing(self) -> None:
        ball = Ball((5.0, -3.0, 4.0))
        image, target = ball.augmented(deforming(), 0)
        np.testing.assert_allclose(image, ball.image, atol=1e-4)
        np.testing.assert_array_equal(target, ball.target)


class TestIntensities:
    image = rng(1).normal(size=(24, 20, 16)).astype(np.float32)
    target = (image > 0).astype(np.float32)[None]

    def changed(self, image: np.ndarray, **settings: float) -> np.ndarray:
        section = OFF.model_copy(update=settings)
        found, target = alone(image, self.target, section=section, spacing=CUBES, rng=rng())
        np.testing.assert_array_equal(target, self.target)
        return found

    def test_a_bias_is_a_smooth_positive_factor(self) -> None:
        flat = np.full(self.image.shape, 2.0, np.float32)
        factor = self.changed(flat, bias=0.5) / flat
        assert factor.min() > 0
        assert factor.max() / factor.min() > 1.1
        for axis in range(3):
            assert np.abs(np.diff(np.log(factor), axis=axis)).max() < 0.2

    def test_a_blur_makes_neighbours_alike_and_keeps_the_mean(self) -> None:
        blurred = self.changed(self.image, blur=2.0)
        assert np.abs(np.diff(blurred, axis=0)).mean() < 0.8 * np.abs(np.diff(self.image, axis=0)).mean()
        assert blurred.mean() == pytest.approx(self.image.mean(), abs=0.05)

    def test_a_gamma_keeps_the_order_and_the_range(self) -> None:
        bent = self.changed(self.image, gamma=0.5)
        order = np.argsort(self.image, axis=None)
        assert (np.diff(bent.ravel()[order]) >= -1e-5).all()
        assert (bent.min(), bent.max()) == (
            pytest.approx(self.image.min(), abs=1e-3), pytest.approx(self.image.max(), abs=1e-3)
        )  # fmt: skip
        assert not np.allclose(bent, self.image, atol=1e-2)

    def test_scale_and_shift_are_the_same_for_every_voxel(self) -> None:
        moved = self.changed(self.image, scale=0.3, shift=0.3)
        slope, intercept = np.polyfit(self.image.ravel(), moved.ravel(), 1)
        np.testing.assert_allclose(moved, slope * self.image + intercept, atol=1e-4)
        assert 0.7 <= slope <= 1.3
        assert abs(intercept) <= 0.3

    def test_noise_is_that_of_every_voxel_by_itself(self) -> None:
        added = self.changed(self.image, noise=0.5) - self.image
        assert 0.0 < added.std() <= 0.5
        assert abs(np.corrcoef(added[:-1].ravel(), added[1:].ravel())[0, 1]) < 0.05
