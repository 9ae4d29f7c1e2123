import numpy as np
import pytest

from training.augment import augment, crop
from training.config import AugmentationSection

OFF = AugmentationSection(flip=(0, 0, 0), scale=0, shift=0, gamma=0, noise=0)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class TestCrop:
    def test_cuts_image_and_target_alike(self) -> None:
        image = np.arange(6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8)
        cut, target = crop(image, np.stack([image, -image]), size=(4, 4, 4), rng=rng())
        assert cut.shape == (4, 4, 4)
        np.testing.assert_array_equal(target, np.stack([cut, -cut]))

    def test_reflects_a_scan_that_is_too_small(self) -> None:
        image = np.arange(4, dtype=np.float32).reshape(4, 1, 1) * np.ones((1, 4, 4), np.float32)
        cut, _ = crop(image, image[None], size=(6, 4, 4), rng=rng())
        assert cut[:, 0, 0].tolist() == [1, 0, 1, 2, 3, 2]


class TestAugment:
    image = np.random.default_rng(1).normal(size=(5, 6, 7)).astype(np.float32)
    target = (image > 0).astype(np.float32)[None]

    def test_does_nothing_when_all_is_off(self) -> None:
        image, target = augment(self.image, self.target, section=OFF, rng=rng())
        np.testing.assert_allclose(image, self.image, atol=1e-5)
        np.testing.assert_array_equal(target, self.target)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_flips_image_and_target_together(self, axis: int) -> None:
        flip = [0.0, 0.0, 0.0]
        flip[axis] = 1.0
        section = OFF.model_copy(update={"flip": tuple(flip)})
        image, target = augment(self.image, self.target, section=section, rng=rng())
        np.testing.assert_allclose(image, np.flip(self.image, axis), atol=1e-5)
        np.testing.assert_array_equal(target, np.flip(self.target, axis + 1))

    def test_intensity_changes_leave_the_target_alone(self) -> None:
        section = AugmentationSection(flip=(0, 0, 0))
        image, target = augment(self.image, self.target, section=section, rng=rng())
        assert image.dtype == np.float32
        assert not np.allclose(image, self.image, atol=1e-2)
        np.testing.assert_array_equal(target, self.target)
