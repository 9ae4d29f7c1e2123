from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store.contract import violations
from training.config import TrainingConfig
from training.contract import derive_contract
from training.data import Case, load_cases

TinyConfig = Callable[..., TrainingConfig]


def halved(case: Case) -> Case:
    """The ball as two segments, cut in the middle of z."""
    upper = np.zeros_like(case.truth[0])
    upper[..., 8:] = True
    return replace(case, truth=np.stack([case.truth[0] & upper, case.truth[0] & ~upper]))


def two_segments(config: TrainingConfig) -> TrainingConfig:
    (one,) = config.segments
    return config.model_copy(update={"segments": (one, one.model_copy(update={"name": "other"}))})


class TestDeriveContract:
    @pytest.fixture
    def cases(self, ball_folder: Path, tiny_config: TinyConfig) -> list[Case]:
        return load_cases(ball_folder, config=tiny_config())

    def test_every_training_scan_is_within_it(self, cases: list[Case], tiny_config: TinyConfig) -> None:
        contract = derive_contract(cases, config=tiny_config())
        for case in cases:
            assert not violations(
                contract,
                modality=case.volume.modality,
                spacing=(1.0, 1.0, 1.0),
                extent=(18.0, 20.0, 17.0),
                image=case.image,
            )
            ((low, high),) = contract.volume_ml
            assert low < case.truth.sum() / 1000 < high

    def test_of_several_segments_the_union_has_its_own_range(self, cases: list[Case], tiny_config: TinyConfig) -> None:
        config = two_segments(tiny_config())
        found = derive_contract([halved(case) for case in cases], config=config)
        whole = derive_contract(cases, config=tiny_config())
        assert len(found.volume_ml) == len(found.border_max) == 3
        assert (found.volume_ml[2], found.border_max[2]) == (whole.volume_ml[0], whole.border_max[0])
        assert found.volume_ml[0][1] < found.volume_ml[2][1]

    def test_a_scan_without_a_segment_says_nothing_of_its_volume(
        self, cases: list[Case], tiny_config: TinyConfig
    ) -> None:
        empty = replace(cases[0], truth=np.zeros_like(cases[0].truth))
        with_it, without = (derive_contract(one, config=tiny_config()) for one in ([*cases[1:], empty], cases[1:]))
        assert with_it.volume_ml == without.volume_ml

    def test_as_much_may_lie_on_the_border_as_the_training_labels_have_there(
        self, cases: list[Case], tiny_config: TinyConfig
    ) -> None:
        assert derive_contract(cases, config=tiny_config()).border_max == (pytest.approx(0.005),)
        touching = np.zeros_like(cases[0].truth)
        touching[0, :10, 5:15, 5:15] = True  # one of ten layers lies on the edge
        found = derive_contract([replace(cases[0], truth=touching)], config=tiny_config())
        assert found.border_max == (pytest.approx(0.105),)
