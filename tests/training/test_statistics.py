from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nca.architecture import Architecture, Level
from nca.engine.torch_engine import TorchEngine, to_network
from nca.model import M3dNca, NcaLevel
from nca.pyramid import pyramid
from nca.randomness import Firing
from training.config import TrainingConfig
from training.data import Case, load_cases
from training.loop import new_state
from training.statistics import PooledMoments, collect
from training.stepping import torch_level

TinyConfig = Callable[..., TrainingConfig]


class TestCollect:
    def test_on_a_single_scan_inference_repeats_what_its_own_batch_gives(
        self, ball_folder: Path, tiny_config: TinyConfig
    ) -> None:
        """The statistics of one scan are those of the batch that holds it alone, so both modes must agree."""
        config = tiny_config()
        case: Case = load_cases(ball_folder, config=config)[0]
        model = new_state(config).model
        for level in model.levels:
            assert isinstance(level, NcaLevel)
            torch.nn.init.normal_(level.dense_out.weight, std=0.1)
        statistics = collect(model, [case], seed=5)
        network = to_network(model, statistics)
        (local,) = TorchEngine().run(network, case.image, seed=5, members=(0,))

        seen: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        firing = Firing(5, (0,), 0.5)

        def by_its_batch(level: int, state: torch.Tensor) -> torch.Tensor:
            return torch_level(model, level, state, firing, lambda step, _, *one: seen.update({(level, step): one}))

        with torch.inference_mode():
            images = [torch.tensor(one) for one in pyramid(model.architecture, case.image[None])]
            by_batch = torch.sigmoid(model.run(images, by_its_batch))
        np.testing.assert_allclose(local, by_batch[0].numpy(), atol=1e-4)
        for ours, expected in zip(statistics[1], seen[1, 2], strict=True):
            torch.testing.assert_close(ours[2], expected)


class TestPooledMoments:
    def test_several_runs_count_as_one_population(self) -> None:
        moments = PooledMoments(M3dNca(Architecture((Level(3, 2),), channels=3, hidden=4)))
        cells = torch.randn(3, 50, 4, dtype=torch.float64) * 3 + 5
        for step in range(2):
            for part in (cells[0], cells[1], cells[2, :7], cells[2, 7:]):
                moments.add(0, step, len(part), part.mean(0), part.var(0, unbiased=False))
            moments.add(0, step, 0, torch.zeros(4), torch.zeros(4))  # a run in which no cell fired says nothing
        ((mean, variance),) = moments.statistics()
        whole = cells.reshape(-1, 4)
        torch.testing.assert_close(mean, whole.mean(0).expand(2, 4))
        torch.testing.assert_close(variance, whole.var(0, unbiased=False).expand(2, 4))
