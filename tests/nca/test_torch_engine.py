from collections.abc import Callable

import numpy as np
import pytest
import torch

from nca.architecture import Architecture, Level
from nca.engine import Progress, get_engine
from nca.engine.torch_engine import TorchEngine, to_model, to_network
from nca.ensemble import predict
from nca.errors import CancelledError, EngineUnavailableError, ImageTooSmallError
from nca.network import Network

MakeNetwork = Callable[..., Network]
IMAGE = np.random.default_rng(1).normal(size=(1, 15, 18, 13)).astype(np.float32)


def run(
    network: Network, image: np.ndarray = IMAGE, *, seed: int = 0, members: tuple[int, ...] = (0, 1, 2)
) -> list[np.ndarray]:
    return list(TorchEngine().run(network, image, seed=seed, members=members))


class TestReproducibility:
    def test_same_seed_same_bits_and_another_seed_other_bits(self, make_network: MakeNetwork) -> None:
        network = make_network()
        first, again, other = run(network), run(network), run(network, seed=1)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))

    def test_a_member_does_not_depend_on_which_others_run(self, make_network: MakeNetwork) -> None:
        network = make_network()
        assert np.array_equal(run(network)[2], run(network, members=(2,))[0])

    def test_members_differ(self, make_network: MakeNetwork) -> None:
        first, second, _ = run(make_network())
        assert not np.array_equal(first, second)

    def test_one_thread_and_two_give_the_same_bits(self, make_network: MakeNetwork) -> None:
        architecture = Architecture((Level(7, 3, (2, 2, 2)), Level(3, 4)))
        network = make_network(architecture)
        image = np.random.default_rng(2).normal(size=(1, 30, 40, 30)).astype(np.float32)
        before = torch.get_num_threads()
        try:
            results = [
                next(TorchEngine(threads=threads).run(network, image, seed=0, members=(0,))) for threads in (1, 2)
            ]
        finally:
            torch.set_num_threads(before)
        np.testing.assert_array_equal(results[0] > 0.5, results[1] > 0.5)
        np.testing.assert_array_equal(results[0], results[1])

    def test_inference_is_local_so_a_far_change_does_not_reach_a_voxel(self, make_network: MakeNetwork) -> None:
        """Three steps of k=5 at half the grid and four of k=3 reach 2 * 3 * 2 + 4 voxels and a block, no further."""
        network = make_network()
        image = np.random.default_rng(3).normal(size=(1, 44, 12, 12)).astype(np.float32)
        changed = image.copy()
        changed[:, -4:] += 5.0
        before, after = run(network, image, members=(0,))[0], run(network, changed, members=(0,))[0]
        reach = 2 * (2 * 3) + 4 + 2
        np.testing.assert_array_equal(before[:, : 40 - reach], after[:, : 40 - reach])
        assert not np.array_equal(before[:, 40 - reach :], after[:, 40 - reach :])


class TestOutput:
    def test_is_one_probability_map_per_segment_on_the_image_grid(self, make_network: MakeNetwork) -> None:
        architecture = Architecture((Level(3, 2, (2, 2, 2)), Level(3, 2)), channels=6, hidden=8, outputs=2)
        (member,) = run(make_network(architecture), members=(0,))
        assert (member.shape, member.dtype) == ((2, 15, 18, 13), np.float32)
        assert member.min() >= 0.0
        assert member.max() <= 1.0

    def test_refuses_an_image_too_small_for_the_kernel(self, make_network: MakeNetwork) -> None:
        with pytest.raises(ImageTooSmallError):
            run(make_network(), IMAGE[:, :, :, :4])


class TestProgress:
    def test_reports_every_step_and_ends_at_one(self, make_network: MakeNetwork) -> None:
        seen: list[Progress] = []
        predict(TorchEngine(), make_network(), IMAGE, seed=0, members=2, on_progress=seen.append)
        fractions = [one.fraction for one in seen]
        assert len(seen) == 2 * (7 + 1)
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0

    def test_a_callback_that_raises_stops_the_run_there(self, make_network: MakeNetwork) -> None:
        seen = []

        def stop(progress: Progress) -> None:
            seen.append(progress)
            if progress.member == 1 and progress.step == 2:
                raise CancelledError

        with pytest.raises(CancelledError):
            predict(TorchEngine(), make_network(), IMAGE, seed=0, members=5, on_progress=stop)
        assert (seen[-1].member, seen[-1].step) == (1, 2)


class TestWeights:
    def test_survive_the_way_into_torch_and_back(self, make_network: MakeNetwork) -> None:
        network = make_network()
        model, statistics = to_model(network)
        levels = network.architecture.levels
        per_level = [
            (
                torch.stack([statistics(i, s)[0] for s in range(level.steps)]),
                torch.stack([statistics(i, s)[1] for s in range(level.steps)]),
            )
            for i, level in enumerate(levels)
        ]
        back = to_network(model, per_level)
        assert back.weights.keys() == network.weights.keys()
        for name, array in network.weights.items():
            np.testing.assert_array_equal(back.weights[name], array)


class TestGpu:
    def test_gives_the_masks_of_the_cpu(self, make_network: MakeNetwork) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no GPU here")
        network = make_network()
        on_gpu = list(get_engine("torch-cuda").run(network, IMAGE, seed=0, members=(0, 1)))
        for mine, reference in zip(on_gpu, run(network, members=(0, 1)), strict=True):
            assert ((mine > 0.5) == (reference > 0.5)).mean() > 0.999

    def test_is_refused_where_there_is_none(self) -> None:
        if torch.cuda.is_available():
            pytest.skip("there is a GPU here")
        with pytest.raises(EngineUnavailableError, match=r"CUDA|GPU"):
            get_engine("torch-cuda")
