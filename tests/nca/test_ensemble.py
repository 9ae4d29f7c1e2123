import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import log

import numpy as np
import pytest

from nca.architecture import Architecture, Level
from nca.engine import ProgressCallback
from nca.ensemble import Ensemble, Prediction, predict
from nca.errors import InvalidInputError
from nca.network import FloatArray, Network
from nca.quality import SLAB, dice, entropy, mask_nqm

NETWORK = Network(Architecture((Level(3, 1),), channels=4, hidden=4, outputs=2), {})


class Recorded:
    """An engine whose members are given."""

    name = "recorded"

    def __init__(self, *members: object) -> None:
        self._members = [np.asarray(member, dtype=np.float32).reshape(2, 1, 1, -1) for member in members]

    def exact(self) -> "Recorded":
        return self

    def run(
        self,
        network: Network,
        image: FloatArray,
        *,
        seed: int,
        members: Sequence[int],
        on_progress: ProgressCallback | None = None,
    ) -> Iterator[FloatArray]:
        yield from (self._members[i] for i in members)


class TestEnsemble:
    def test_mean_and_population_deviation_worked_by_hand(self) -> None:
        engine = Recorded([[0.2, 1.0], [0.0, 0.0]], [[0.6, 1.0], [0.0, 0.0]])
        first, second, _ = predict(engine, NETWORK, np.zeros((1, 1, 1, 2), np.float32), seed=0, members=2)
        np.testing.assert_allclose(first.mean.ravel(), [0.4, 1.0], rtol=1e-6)
        np.testing.assert_allclose(first.deviation.ravel(), [0.2, 0.0], atol=1e-7)
        assert first.nqm == pytest.approx(0.2 / 1.4)
        # masks at 0.5: {voxel 1} and {both} -> 2 * 1 / 3
        assert first.pairwise_dice == pytest.approx(2 / 3)
        assert first.mask.ravel().tolist() == [False, True]
        assert (second.nqm, second.pairwise_dice) == (None, None)
        assert first.members == second.members == 2

    def test_members_that_agree_have_no_spread_at_all(self) -> None:
        ensemble = Ensemble()
        for _ in range(7):
            ensemble.add(np.full((1, 2, 2, 2), 0.1, np.float32))
        (prediction,) = ensemble.predictions()
        assert prediction.nqm == 0.0
        assert not prediction.deviation.any()

    def test_agrees_with_numpy_on_random_members(self) -> None:
        members = np.random.default_rng(0).random((10, 1, 5, 6, 7), dtype=np.float32)
        ensemble = Ensemble()
        for member in members:
            ensemble.add(member)
        (prediction,) = ensemble.predictions()
        exact = members[:, 0].astype(np.float64)
        np.testing.assert_allclose(prediction.mean, exact.mean(0), rtol=1e-6)
        np.testing.assert_allclose(prediction.deviation, exact.std(0), rtol=1e-5)
        assert prediction.nqm == pytest.approx(exact.std(0).sum() / exact.mean(0).sum(), rel=1e-7)

    def test_a_scan_of_several_slabs_is_every_voxel_of_it(self) -> None:
        members = np.random.default_rng(0).random((3, 2, 37, 61, 59), dtype=np.float32)
        assert members[0, 0].size > SLAB
        ensemble = Ensemble()
        for member in members:
            ensemble.add(np.asfortranarray(member))
        whole = members.sum(1, keepdims=True).clip(max=1.0)
        structures = np.concatenate([members, whole], axis=1).astype(np.float64)
        for exact, prediction in zip(structures.swapaxes(0, 1), ensemble.predictions(), strict=True):
            np.testing.assert_allclose(prediction.mean, exact.mean(0), rtol=1e-6)
            np.testing.assert_allclose(prediction.deviation, exact.std(0), rtol=1e-5, atol=1e-7)
            pairs = [dice(exact[i] > 0.5, exact[j] > 0.5) for i, j in ((0, 1), (0, 2), (1, 2))]
            assert prediction.pairwise_dice == pytest.approx(np.mean(pairs))

    def test_what_was_handed_over_is_not_touched_by_later_members(self) -> None:
        ensemble = Ensemble()
        for value in (0.2, 0.6):
            ensemble.add(np.full((1, 2, 2, 2), value, np.float32))
        (first,) = ensemble.predictions()
        assert ensemble.predictions() == ()
        ensemble.add(np.full((1, 2, 2, 2), 0.9, np.float32))
        (second,) = ensemble.predictions()
        assert (first.nqm, second.nqm) == (pytest.approx(0.5), 0.0)
        np.testing.assert_allclose(first.mean, 0.4, rtol=1e-6)

    def test_a_member_that_is_not_finite_makes_the_result_say_so(self) -> None:
        ensemble = Ensemble()
        ensemble.add(np.array([0.5, np.nan], np.float32).reshape(1, 1, 1, 2))
        (prediction,) = ensemble.predictions()
        assert not prediction.finite
        assert prediction.nqm is None

    def test_memory_holds_one_bit_per_voxel_and_member(self) -> None:
        ensemble = Ensemble()
        for _ in range(3):
            ensemble.add(np.zeros((1, 8, 8, 8), np.float32))
        assert [mask.nbytes for mask in ensemble._masks] == [64, 64, 64]

    def test_a_large_scan_takes_two_maps_and_the_masks(self) -> None:
        probability = np.full((1, 128, 128, 128), 0.3, np.float32)
        ensemble = Ensemble()
        tracemalloc.start()
        try:
            for _ in range(5):
                ensemble.add(probability)
            ensemble.predictions()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2 * probability.nbytes + 5 * probability.size / 8 + 5 * 8 * SLAB


class TestUnion:
    """Of several segments the union comes last."""

    def predictions(self, *members: object) -> tuple[Prediction, ...]:
        ensemble = Ensemble()
        for member in members:
            ensemble.add(np.asarray(member, np.float32).reshape(2, 1, 1, -1))
        return ensemble.predictions()

    def test_is_the_sum_of_the_segments_and_never_above_one(self) -> None:
        union = self.predictions([[0.3, 0.9, 0.1], [0.4, 0.2, 0.1]])[-1]
        np.testing.assert_allclose(union.mean.ravel(), [0.7, 1.0, 0.2], rtol=1e-6)

    def test_holds_a_voxel_that_is_surely_one_of_them_and_unsure_which(self) -> None:
        first, second, union = self.predictions([[0.45, 0.0], [0.45, 0.0]])
        assert [one.mask.ravel().tolist() for one in (first, second, union)] == [
            [False, False], [False, False], [True, False]
        ]  # fmt: skip

    def test_members_that_disagree_only_on_which_agree_on_the_union(self) -> None:
        first, second, union = self.predictions([[0.9, 0.0], [0.1, 0.0]], [[0.1, 0.0], [0.9, 0.0]])
        assert (first.pairwise_dice, second.pairwise_dice, union.pairwise_dice) == (0.0, 0.0, 1.0)
        assert union.nqm == pytest.approx(0.0, abs=1e-7)
        assert first.nqm == pytest.approx(0.8)

    def test_a_single_segment_has_none(self) -> None:
        ensemble = Ensemble()
        ensemble.add(np.full((1, 2, 2, 2), 0.6, np.float32))
        assert len(ensemble.predictions()) == 1


class TestEvidence:
    members = np.random.default_rng(0).beta(0.3, 0.3, (4, 1, 6, 7, 8)).astype(np.float32)

    def prediction(self, members: FloatArray) -> Prediction:
        ensemble = Ensemble()
        for member in members:
            ensemble.add(member)
        (prediction,) = ensemble.predictions()
        return prediction

    def test_holds_the_measures_of_the_prediction(self) -> None:
        prediction = self.prediction(self.members)
        found = prediction.evidence()
        assert found is not None
        assert prediction.nqm is not None
        assert prediction.pairwise_dice is not None
        assert found.nqm == prediction.nqm
        assert found.log_nqm == pytest.approx(log(prediction.nqm + 0.01))
        assert found.disagreement == 1 - prediction.pairwise_dice
        assert found.entropy == pytest.approx(entropy(prediction.mean))
        assert found.mask_nqm == mask_nqm([np.packbits(one > 0.5) for one in self.members])

    def test_knows_where_the_mask_lies(self) -> None:
        probability = np.zeros((1, 6, 7, 8), np.float32)
        probability[0, 0, 2:5, 2] = 0.9  # 3 voxels on the edge of the field of view
        probability[0, 4, 4, 4] = 0.9
        found = self.prediction(probability[None]).evidence()
        assert found is not None
        assert (found.border, found.stray) == (pytest.approx(0.75), pytest.approx(0.25))

    def test_a_single_member_has_nobody_to_disagree_with(self) -> None:
        found = self.prediction(self.members[:1]).evidence()
        assert found is not None
        assert (found.nqm, found.disagreement, found.mask_nqm) == (0.0, 0.0, 0.0)

    def test_there_is_none_of_an_empty_mask(self) -> None:
        assert self.prediction(0.4 * self.members).evidence() is None

    def test_there_is_none_where_the_maps_are_not_to_be_used(self) -> None:
        members = self.members.copy()
        members[0, 0, 0, 0, 0] = np.nan
        broken = self.prediction(members)
        assert broken.evidence() is None
        assert replace(self.prediction(self.members), finite=False).evidence() is None


class TestPredict:
    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((2, 2, 2), np.float32),
            np.zeros((2, 2, 2, 2), np.float32),
            np.zeros((1, 2, 2, 2), np.float64),
            np.full((1, 2, 2, 2), np.inf, np.float32),
        ],
        ids=["no channel axis", "too many inputs", "double precision", "infinite"],
    )
    def test_refuses_an_image_it_was_not_made_for(self, image: FloatArray) -> None:
        with pytest.raises(InvalidInputError):
            predict(Recorded(), NETWORK, image, seed=0, members=1)

    def test_refuses_an_empty_ensemble(self) -> None:
        with pytest.raises(InvalidInputError):
            predict(Recorded(), NETWORK, np.zeros((1, 2, 2, 2), np.float32), seed=0, members=0)
