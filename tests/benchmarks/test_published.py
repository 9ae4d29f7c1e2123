from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmarks.published import PublishedEngine, PublishedNca, published_level, to_published
from nca.architecture import Architecture, Level
from nca.engine import Progress
from nca.engine.torch_engine import to_model
from nca.model import refine
from nca.network import Network
from nca.pyramid import pyramid
from nca.randomness import Firing

MakeNetwork = Callable[..., Network]
TWO_LEVELS = Architecture((Level(7, 8, (2, 2, 2)), Level(3, 20)))


class TestPublishedNca:
    def test_has_the_published_parameter_count(self) -> None:
        assert sum(one.numel() for one in PublishedNca(TWO_LEVELS).parameters()) == 12_480

    @pytest.mark.parametrize("index", [0, 1])
    def test_a_step_in_which_every_cell_fires_is_that_of_the_model_with_batch_statistics(
        self, make_network: MakeNetwork, index: int
    ) -> None:
        network = make_network(TWO_LEVELS)
        state = torch.randn(2, 16, 9, 8, 7, generator=torch.Generator().manual_seed(0))
        fired = torch.ones(2, 9, 8, 7, dtype=torch.bool)
        model, _ = to_model(network)
        with torch.inference_mode():
            ours, published = model.levels[index](state, fired), to_published(network).levels[index](state, fired)
        assert (ours - state).abs().mean() > 0.1
        torch.testing.assert_close(published, ours, rtol=1e-5, atol=1e-5)

    def test_cells_that_did_not_fire_and_the_image_stay_as_they_are(self, make_network: MakeNetwork) -> None:
        state = torch.randn(1, 16, 5, 5, 5)
        fired = torch.rand(1, 5, 5, 5) < 0.5
        with torch.inference_mode():
            change = to_published(make_network(TWO_LEVELS)).levels[1](state, fired) - state
        assert not change.movedim(1, -1)[~fired].any()
        assert not change[:, 0].any()
        assert change[:, 1:].any()

    def test_goes_from_level_to_level_as_the_model_does(self) -> None:
        architecture = Architecture((Level(3, 1, (2, 2, 3)), Level(3, 1)), channels=5)
        image = torch.randn(1, 1, 7, 8, 10)
        model = PublishedNca(architecture)
        images = model.pyramid(image)
        for mine, ours in zip(images, pyramid(architecture, image.numpy()), strict=True):
            np.testing.assert_allclose(mine.numpy(), ours, rtol=1e-5, atol=1e-6)
        coarse = model.enter(0, None, images[0]) + 1.0
        assert torch.equal(model.enter(1, coarse, images[1]), refine(coarse, images[1], (2, 2, 3)))


class TestPublishedLevelForTraining:
    def test_is_the_published_level_on_the_weights_of_the_model(self, make_network: MakeNetwork) -> None:
        network = make_network(TWO_LEVELS)
        firing = Firing(5, (0, 1), 0.5)
        state = torch.randn(2, 16, 5, 6, 4, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            trained = published_level(to_model(network)[0], 1, state, firing)
            for step in range(20):
                fired = torch.from_numpy(firing.mask(1, step, (5, 6, 4)))
                state = to_published(network).levels[1](state, fired)
        torch.testing.assert_close(trained, state)


class TestPublishedEngine:
    def test_yields_every_member_and_reports_every_step_from_its_beginning(self, make_network: MakeNetwork) -> None:
        network = make_network()
        image = np.random.default_rng(0).normal(size=(1, 12, 10, 9)).astype(np.float32)
        seen: list[Progress] = []
        first, second = PublishedEngine().run(network, image, seed=0, members=(0, 1), on_progress=seen.append)
        assert (first.shape, first.dtype) == ((1, 12, 10, 9), np.float32)
        assert not np.array_equal(first, second)
        assert [(one.member, one.step) for one in seen] == [(m, s) for m in range(2) for s in range(8)]
        assert seen[-1].fraction == 1.0

    def test_depends_on_the_whole_image_unlike_the_engines_of_the_project(self, make_network: MakeNetwork) -> None:
        architecture = Architecture((Level(3, 2),))
        image = np.random.default_rng(0).normal(size=(1, 30, 8, 8)).astype(np.float32)
        changed = image.copy()
        changed[:, -1] += 9.0
        engine, network = PublishedEngine(), make_network(architecture)
        before, after = (next(engine.run(network, one, seed=0, members=(0,))) for one in (image, changed))
        assert not np.array_equal(before[:, :20], after[:, :20])
