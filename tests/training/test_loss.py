import numpy as np
import pytest
import torch

from training.loss import dice_focal, hard_dice


def logit(*probabilities: float) -> torch.Tensor:
    return torch.logit(torch.tensor(probabilities)).reshape(1, 1, -1, 1, 1)


class TestDiceFocal:
    def test_worked_by_hand(self) -> None:
        target = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1, 1)
        # Dice: (2 * 0.8 + 1) / (0.8 + 0.4 + 1 + 1); focal: 0.2^2 * -ln 0.8 and 0.4^2 * -ln 0.6, averaged
        expected = 1 - 2.6 / 3.2 + (0.04 * -np.log(0.8) + 0.16 * -np.log(0.6)) / 2
        assert dice_focal(logit(0.8, 0.4), target, gamma=2.0).item() == pytest.approx(expected, rel=1e-5)

    def test_gamma_zero_is_cross_entropy(self) -> None:
        target = torch.tensor([1.0, 0.0]).reshape(1, 1, 2, 1, 1)
        expected = 1 - 2.6 / 3.2 + (-np.log(0.8) - np.log(0.6)) / 2
        assert dice_focal(logit(0.8, 0.4), target, gamma=0.0).item() == pytest.approx(expected, rel=1e-5)

    def test_is_finite_on_a_patch_without_the_structure(self) -> None:
        logits = torch.full((1, 1, 4, 4, 4), -50.0, requires_grad=True)
        loss = dice_focal(logits, torch.zeros(1, 1, 4, 4, 4), gamma=2.0)
        loss.backward()
        assert loss.item() == pytest.approx(0.0, abs=1e-6)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()


class TestHardDice:
    def test_worked_by_hand(self) -> None:
        target = torch.tensor([1.0, 1.0, 0.0]).reshape(1, 1, 3, 1, 1)
        assert hard_dice(logit(0.9, 0.1, 0.9), target) == 0.5
