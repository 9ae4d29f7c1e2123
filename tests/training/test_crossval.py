from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from training.config import TrainingConfig
from training.crossval import run_fold
from training.data import folds, load_cases


class TestSeveralChannels:
    """A network of two inputs, of which only the second shows the structure."""

    @pytest.fixture
    def two_channels(self, ball_folder: Path, tmp_path: Path) -> Path:
        """The balls as volume 2 of three; the others are noise."""
        for image in (ball_folder / "images").iterdir():
            scan = Nifti1Image.from_filename(image)
            ball = np.asarray(scan.dataobj)
            noise = np.random.default_rng(0).normal(size=(2, *ball.shape)).astype(np.float32)
            (tmp_path / "images").mkdir(exist_ok=True)
            Nifti1Image(np.stack([*noise, ball], axis=3), scan.affine).to_filename(tmp_path / "images" / image.name)
        (tmp_path / "labels").symlink_to(ball_folder / "labels")
        return tmp_path

    def test_are_learned_from_damaged_and_judged(
        self, two_channels: Path, tiny_config: Callable[..., TrainingConfig], tmp_path: Path
    ) -> None:
        config = tiny_config(iterations=100, average=0.9, patches=[{"start": 0.0, "size": [12, 12, 12]}])
        config = config.model_copy(update={"model": config.model.model_copy(update={"volumes": (0, 2)})})
        fold = folds(load_cases(two_channels, config=config), config=config)[0]
        result = run_fold(fold, config=config, run=tmp_path / "run", resume=False)
        clean = [one for one in result.outcomes if one.condition.severity == 0 and one.observed.members == 3]
        assert len(clean) == 4
        assert min(one.dice for one in clean) > 0.8
        assert not any(one.breaches for one in clean)
        assert len({one.condition.kind for one in result.outcomes}) == 12
