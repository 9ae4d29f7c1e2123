import tracemalloc

import numpy as np
import pytest
import torch
from torch.nn import functional

from nca.architecture import Architecture, Level, Shape
from nca.pyramid import pyramid


def two_levels(scale: Shape) -> Architecture:
    return Architecture((Level(3, 1, scale), Level(3, 1)))


class TestPyramid:
    def test_averages_blocks_and_what_there_is_of_them_at_the_border(self) -> None:
        image = np.array([1.0, 3.0, 10.0], np.float32).reshape(1, 3, 1, 1)
        coarse, fine = pyramid(two_levels((2, 1, 1)), image)
        assert coarse.ravel().tolist() == [2.0, 10.0]
        assert fine is image

    @pytest.mark.parametrize("scale", [(2, 2, 2), (4, 4, 1), (3, 1, 2), (4, 4, 4)])
    @pytest.mark.parametrize("shape", [(1, 16, 24, 12), (2, 1, 17, 9, 7), (5, 6, 4)])
    def test_agrees_with_torch(self, scale: Shape, shape: tuple[int, ...]) -> None:
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        batch = torch.tensor(image).reshape(1, -1, *shape[-3:])
        expected = functional.avg_pool3d(batch, scale, ceil_mode=True, count_include_pad=False)
        coarse, _ = pyramid(two_levels(scale), image)
        assert coarse.dtype == np.float32
        assert coarse.shape[:-3] == shape[:-3]
        np.testing.assert_allclose(coarse.reshape(expected.shape[1:]), expected[0].numpy(), atol=1e-6)

    def test_every_level_is_made_from_the_one_below_it(self) -> None:
        architecture = Architecture((Level(3, 1, (2, 2, 1)), Level(3, 1, (3, 2, 2)), Level(3, 1)))
        image = np.random.default_rng(0).normal(size=(1, 13, 11, 6)).astype(np.float32)
        levels = pyramid(architecture, image)
        assert [level.shape[1:] for level in levels] == list(architecture.shapes(image.shape[1:]))
        np.testing.assert_array_equal(levels[0], pyramid(two_levels((2, 2, 1)), levels[1])[0])

    def test_takes_no_more_memory_than_it_returns(self) -> None:
        image = np.zeros((1, 128, 128, 64), np.float32)
        tracemalloc.start()
        try:
            coarse, _ = pyramid(two_levels((2, 2, 2)), image)
            assert tracemalloc.get_traced_memory()[1] < coarse.nbytes + 100_000
        finally:
            tracemalloc.stop()
