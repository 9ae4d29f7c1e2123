import numpy as np
import torch

from nca.architecture import Architecture, Level
from nca.model import M3dNca
from training.patches import run_patches

CASCADE = Architecture((Level(3, 1, (2, 2, 1)), Level(3, 1, (2, 2, 2)), Level(3, 1)), channels=4, hidden=8)


class TestRunPatches:
    def outputs(self) -> tuple[list[tuple[int, ...]], torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        model = M3dNca(CASCADE)
        image = torch.randn(3, 1, 16, 24, 12)
        target = (torch.rand(3, 1, 16, 24, 12) < 0.5).float()
        rng = np.random.default_rng(0)
        levels = run_patches(model, image.numpy(), target.numpy(), patch=(8, 8, 4), fire_seed=1, rng=rng)
        assert all(level.logits.shape == level.target.shape for level in levels)
        return [tuple(level.target.shape[2:]) for level in levels], target, levels[-1].target

    def test_the_coarsest_level_sees_the_crop_and_the_others_a_patch(self) -> None:
        shapes, _, _ = self.outputs()
        assert shapes == [(4, 6, 6), (8, 8, 4), (8, 8, 4)]

    def test_the_finest_target_is_a_part_of_the_truth(self) -> None:
        _, target, patch = self.outputs()
        for whole, part in zip(target[:, 0], patch[:, 0], strict=True):
            windows = whole.unfold(0, 8, 1).unfold(1, 8, 1).unfold(2, 4, 1)
            assert (windows == part).flatten(3).all(-1).any()

    def test_every_sample_has_a_patch_of_its_own(self) -> None:
        torch.manual_seed(0)
        image = torch.randn(1, 1, 16, 24, 12).repeat(4, 1, 1, 1, 1)
        target = torch.rand(1, 1, 16, 24, 12).repeat(4, 1, 1, 1, 1)
        model, rng = M3dNca(CASCADE), np.random.default_rng(0)
        levels = run_patches(model, image.numpy(), target.numpy(), patch=(8, 8, 4), fire_seed=1, rng=rng)
        patches = levels[-1].target
        assert not all(torch.equal(patches[0], other) for other in patches[1:])
