import tracemalloc
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from nca.architecture import Architecture, Level
from nca.engine import ProgressCallback
from nca.ensemble import SLAB, Ensemble, predict
from nca.errors import InvalidInputError
from nca.network import FloatArray, Network
from nca.quality import dice

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
        first, second = predict(engine, NETWORK, np.zeros((1, 1, 1, 2), np.float32), seed=0, members=2)
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
        for segment, prediction in enumerate(ensemble.predictions()):
            exact = members[:, segment].astype(np.float64)
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
