import numpy as np
import pytest
import torch
from torch import Tensor

from nca.architecture import Architecture, Level
from nca.depthwise import perceive
from nca.model import M3dNca, NcaLevel, refine
from nca.weights import NORM_EPSILON


class TestPerceive:
    @pytest.mark.parametrize("kernel", [3, 5])
    def test_matches_a_sum_over_taps_with_reflected_borders(self, kernel: int) -> None:
        rng = np.random.default_rng(0)
        state, weight = rng.normal(size=(1, 2, 5, 6, 4)), rng.normal(size=(2, kernel, kernel, kernel))
        bias = rng.normal(size=2)
        reach = kernel // 2
        padded = np.pad(state, [(0, 0), (0, 0), *[(reach, reach)] * 3], mode="reflect")
        expected = np.zeros_like(state) + bias[:, None, None, None]
        for i, j, k in np.ndindex(kernel, kernel, kernel):
            expected += weight[:, i, j, k, None, None, None] * padded[:, :, i : i + 5, j : j + 6, k : k + 4]
        result = perceive(torch.tensor(state), torch.tensor(weight), torch.tensor(bias))
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-10)

    def test_gradients_are_those_of_finite_differences(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

        assert torch.autograd.gradcheck(perceive, (draw(2, 2, 4, 5, 4), draw(2, 3, 3, 3), draw(2)))


class TestNcaLevel:
    architecture = Architecture((Level(3, 1),), channels=3, hidden=4)

    def level(self) -> NcaLevel:
        torch.manual_seed(1)
        model = M3dNca(self.architecture)
        level = model.levels[0]
        assert isinstance(level, NcaLevel)
        torch.nn.init.normal_(level.dense_out.weight)
        return level

    def test_a_new_automaton_leaves_every_cell_as_it_is(self) -> None:
        model = M3dNca(self.architecture)
        state = torch.randn(1, 3, 4, 4, 4)
        fired = torch.ones(1, 4, 4, 4, dtype=torch.bool)
        assert torch.equal(model.levels[0](state, fired), state)

    def test_a_step_with_statistics_is_the_equation_worked_in_numpy(self) -> None:
        level = self.level()
        state = torch.randn(1, 3, 4, 5, 4)
        fired = torch.rand(1, 4, 5, 4) < 0.5
        mean, variance = torch.randn(4), torch.rand(4) + 0.5
        with torch.no_grad():
            result = level(state, fired, statistics=(mean, variance))[0].numpy()
            seen = perceive(state, level.perceive_weight, level.perceive_bias)[0].numpy()
        weights = {name: value.detach().numpy() for name, value in level.named_parameters()}
        for at in np.ndindex(4, 5, 4):
            cell = state[0].numpy()[(slice(None), *at)]
            hidden = weights["dense_in.weight"] @ np.concatenate([cell, seen[(slice(None), *at)]])
            hidden = hidden + weights["dense_in.bias"]
            normal = (hidden - mean.numpy()) / np.sqrt(variance.numpy() + NORM_EPSILON)
            normal = normal * weights["norm_scale"] + weights["norm_shift"]
            update = weights["dense_out.weight"] @ np.maximum(normal, 0)
            update[0] = 0.0  # the image stays fixed
            expected = cell + (update if fired[(0, *at)] else 0.0)
            np.testing.assert_allclose(result[(slice(None), *at)], expected, rtol=1e-4, atol=1e-5)

    def test_cells_that_did_not_fire_keep_their_state(self) -> None:
        level = self.level()
        state = torch.randn(2, 3, 4, 4, 4)
        fired = torch.rand(2, 4, 4, 4) < 0.5
        change = (level(state, fired) - state).abs().sum(1)
        assert not change[~fired].any()
        assert (change[fired] > 0).float().mean() > 0.5  # where the hidden layer is all cut off a cell stays as well

    def test_training_normalises_by_the_fired_cells_of_the_batch(self) -> None:
        level = self.level()
        state = torch.randn(2, 3, 4, 4, 4)
        fired = torch.rand(2, 4, 4, 4) < 0.5
        seen: list[tuple[int, Tensor, Tensor]] = []
        by_batch = level(state, fired, on_statistics=lambda *one: seen.append(one))
        count, mean, variance = seen[0]
        assert count == int(fired.sum())
        assert mean.shape == variance.shape == (4,)
        torch.testing.assert_close(level(state, fired, statistics=(mean.float(), variance.float())), by_batch)


class TestRefine:
    def test_repeats_the_hidden_channels_and_renews_the_image(self) -> None:
        state = torch.arange(4.0).reshape(1, 2, 2, 1, 1)  # image 0, 1; hidden 2, 3
        image = torch.tensor([7.0, 8.0, 9.0]).reshape(1, 1, 3, 1, 1)
        finer = refine(state, image, (2, 1, 1))
        assert finer[0, :, :, 0, 0].tolist() == [[7.0, 8.0, 9.0], [2.0, 2.0, 3.0]]
