from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nca.engine.torch_engine import TorchEngine, to_network
from nca.model import NcaLevel
from nca.pyramid import pyramid
from nca.randomness import fire_mask, stream_key, voxel_index
from training.config import TrainingConfig
from training.data import Case, load_cases
from training.loop import new_state
from training.statistics import collect

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
        seen: dict[tuple[int, int], torch.Tensor] = {}
        statistics = collect(model, [case], seed=5)
        network = to_network(model, statistics)
        (local,) = TorchEngine().run(network, case.image[None], seed=5, members=(0,))

        grids = config.network().shapes(case.image.shape)

        def fire(level: int, step: int) -> torch.Tensor:
            key = stream_key(seed=5, member=0, level=level, step=step)
            return torch.from_numpy(fire_mask(voxel_index(grids[level]), key, 0.5))[None]

        with torch.inference_mode():
            images = [torch.tensor(one) for one in pyramid(model.architecture, case.image[None, None])]
            by_batch = torch.sigmoid(model.run(images, fire, on_hidden=lambda i, s, h: seen.update({(i, s): h})))
        np.testing.assert_allclose(local, by_batch[0].numpy(), atol=1e-4)
        mean, variance = statistics[1]
        np.testing.assert_allclose(mean[2], seen[1, 2].mean(0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(variance[2], seen[1, 2].var(0, unbiased=False), rtol=1e-3, atol=1e-4)
