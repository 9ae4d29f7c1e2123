"""The C++ kernels against the readable model: one level, step by step."""

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from nca.architecture import Architecture, Level, Shape
from nca.engine.native.packing import CHANNEL_QUANTUM, pack_level, padded
from nca.engine.torch_engine import to_model
from nca.network import FloatArray, Network
from nca.randomness import fire_mask, fire_threshold, stream_key, voxel_index

MakeNetwork = Callable[..., Network]
STEPS = 4
KEYS = [stream_key(seed=3, member=1, level=0, step=step) for step in range(STEPS)]
SHAPES = [
    (3, (9, 11, 13), 16, 64),
    (5, (7, 12, 9), 16, 64),
    (7, (10, 9, 8), 16, 64),
    (7, (4, 4, 4), 16, 64),  # as small as a kernel of 7 can be mirrored in
    (3, (2, 2, 70), 16, 64),
    (5, (7, 6, 9), 6, 10),
    (3, (5, 4, 66), 20, 40),
    (9, (6, 7, 8), 33, 100),
]


def start(grid: Shape, channels: int) -> FloatArray:
    return np.random.default_rng(1).normal(size=(*grid, channels)).astype(np.float32)


def network_of(make_network: MakeNetwork, kernel: int, channels: int, hidden: int, **changes: Any) -> Network:
    return make_network(Architecture((Level(kernel, STEPS),), channels=channels, hidden=hidden, **changes))


def swept(
    core: ModuleType,
    network: Network,
    before: FloatArray,
    *,
    isa: str = "",
    threads: int = 1,
    per_pass: int = 1,
    file: int = -1,
) -> FloatArray:
    *grid, channels = before.shape
    packed = pack_level(network, 0)
    level = core.Level(isa, packed.perceive, packed.dense_in, packed.bias, packed.dense_out)
    reach = (network.architecture.levels[0].kernel - 1) // 2
    state = core.State(tuple(grid), padded(channels, CHANNEL_QUANTUM), reach, file)
    state.write(before)
    team, workspace = core.Team(threads), core.Workspace()
    threshold = fire_threshold(network.architecture.fire_rate)
    for first in range(0, STEPS, per_pass):
        core.sweep(team, workspace, level, state, first, KEYS[first : first + per_pass], threshold, None)
    after = np.empty_like(before)
    state.read(after)
    return after


def by_torch(network: Network, before: FloatArray) -> FloatArray:
    model, statistics = to_model(network)
    x, y, z, _ = before.shape
    state = torch.from_numpy(before).movedim(-1, 0)[None]
    with torch.inference_mode():
        for step in range(STEPS):
            fired = fire_mask(voxel_index((x, y, z)), KEYS[step], network.architecture.fire_rate)
            state = model.levels[0](state, torch.from_numpy(fired)[None], statistics=statistics(0, step))
    after: FloatArray = state[0].movedim(0, -1).numpy()
    return after


class TestStep:
    @pytest.mark.parametrize(("kernel", "grid", "channels", "hidden"), SHAPES)
    @pytest.mark.parametrize("isa", [0, 1, 2, 3], ids=["best", "second", "third", "fourth"])
    def test_agrees_with_torch_to_1e_5_a_step(
        self,
        core: ModuleType,
        make_network: MakeNetwork,
        isa: int,
        kernel: int,
        grid: Shape,
        channels: int,
        hidden: int,
    ) -> None:
        if isa >= len(core.isas()):
            pytest.skip(f"this machine runs the kernels {core.isas()} only")
        network = network_of(make_network, kernel, channels, hidden)
        before = start(grid, channels)
        expected = by_torch(network, before)
        error = np.abs(swept(core, network, before, isa=core.isas()[isa]) - expected).max()
        assert error <= STEPS * 1e-5 * max(1.0, float(np.abs(expected).max()))
        assert np.abs(expected - before).max() > 0.1

    @pytest.mark.parametrize(("rate", "fired"), [(1.0, "all"), (1e-9, "none")])
    def test_every_cell_fires_at_rate_one(
        self, core: ModuleType, make_network: MakeNetwork, rate: float, fired: str
    ) -> None:
        network = network_of(make_network, 3, 16, 64, fire_rate=rate)
        before = start((6, 7, 8), 16)
        after = swept(core, network, before)
        changed = (after != before).any(axis=-1)
        assert changed.all() if fired == "all" else not changed.any()

    def test_the_image_channels_stay_fixed(self, core: ModuleType, make_network: MakeNetwork) -> None:
        network = network_of(make_network, 3, 16, 64, inputs=2)
        before = start((6, 7, 8), 16)
        after = swept(core, network, before)
        np.testing.assert_array_equal(after[..., :2], before[..., :2])
        assert (after[..., 2:] != before[..., 2:]).any()

    def test_a_nan_spreads_as_far_as_the_kernel_reaches_and_no_further(
        self, core: ModuleType, make_network: MakeNetwork
    ) -> None:
        network = network_of(make_network, 3, 16, 64, fire_rate=1.0)
        before = start((11, 11, 11), 16)
        before[5, 5, 5, 3] = np.nan
        spread = np.isnan(swept(core, network, before)).max(axis=-1)
        assert spread[5 - STEPS + 1 : 5 + STEPS, 5, 5].all()
        assert not spread[0].any()


class TestSplit:
    """The same bits however the work is divided."""

    @pytest.mark.parametrize(("kernel", "grid", "channels", "hidden"), SHAPES)
    def test_threads_and_steps_in_a_pass_change_no_bit(
        self, core: ModuleType, make_network: MakeNetwork, kernel: int, grid: Shape, channels: int, hidden: int
    ) -> None:
        network = network_of(make_network, kernel, channels, hidden)
        before = start(grid, channels)
        alone = swept(core, network, before)
        for threads in (1, 2, 3, 16):
            for per_pass in (1, 3, STEPS):
                np.testing.assert_array_equal(swept(core, network, before, threads=threads, per_pass=per_pass), alone)

    @pytest.mark.parametrize(("kernel", "grid", "channels", "hidden"), SHAPES)
    def test_instruction_sets_that_fuse_round_alike(
        self, core: ModuleType, make_network: MakeNetwork, kernel: int, grid: Shape, channels: int, hidden: int
    ) -> None:
        fusing = [isa for isa in core.isas() if isa != "x86_64_v2"]
        network = network_of(make_network, kernel, channels, hidden)
        results = [swept(core, network, start(grid, channels), isa=isa) for isa in fusing]
        for result in results:
            np.testing.assert_array_equal(result, results[0])

    def test_states_in_a_file_change_no_bit(self, core: ModuleType, make_network: MakeNetwork, tmp_path: Any) -> None:
        network = network_of(make_network, 5, 16, 64)
        before = start((40, 150, 150), 16)  # about a megabyte and a half a plane: several mapped pieces
        in_memory = swept(core, network, before, threads=2, per_pass=2)
        with (tmp_path / "states").open("w+b") as file:
            streamed = swept(core, network, before, threads=2, per_pass=2, file=file.fileno())
        np.testing.assert_array_equal(streamed, in_memory)


class TestRefusals:
    """A wrong call from Python is an error there."""

    def test_a_level_of_contradicting_weights(self, core: ModuleType, make_network: MakeNetwork) -> None:
        good = pack_level(network_of(make_network, 3, 16, 64), 0)
        for perceive, dense_in, bias, dense_out in [
            (good.perceive[:2], good.dense_in, good.bias, good.dense_out),
            (np.ascontiguousarray(good.perceive[..., :8]), good.dense_in, good.bias, good.dense_out),
            (good.perceive, np.ascontiguousarray(good.dense_in[:, :31]), good.bias, good.dense_out),
            (good.perceive, good.dense_in, good.bias[:2], good.dense_out),
            (good.perceive, good.dense_in, good.bias, good.dense_out[:32]),
        ]:
            with pytest.raises(ValueError, match=r"kernel|padded|shapes"):
                core.Level("", perceive, dense_in, bias, dense_out)

    @pytest.mark.parametrize(
        "wrong", [np.float64, np.int32, "strided", "rank"], ids=["double", "integer", "not contiguous", "rank"]
    )
    def test_an_array_of_another_type_or_layout(self, core: ModuleType, wrong: Any) -> None:
        image = np.zeros((1, 8, 8, 8), np.float32)
        bad: Any = (
            {
                "strided": np.zeros((1, 8, 8, 16), np.float32)[..., ::2],
                "rank": image[0],
            }.get(wrong)
            if isinstance(wrong, str)
            else image.astype(wrong)
        )
        with pytest.raises(TypeError):
            core.State((8, 8, 8), 16, 1).seed(core.Team(1), bad)

    def test_an_image_of_another_shape(self, core: ModuleType) -> None:
        with pytest.raises(ValueError, match="shape"):
            core.State((8, 8, 8), 16, 1).seed(core.Team(1), np.zeros((1, 8, 8, 9), np.float32))
        with pytest.raises(ValueError, match="shape"):
            core.State((8, 8, 8), 16, 1).probabilities(core.Team(1), 1, np.zeros((1, 7, 8, 8), np.float32))

    @pytest.mark.parametrize(
        ("grid", "channels", "reach"), [((3, 9, 9), 16, 3), ((0, 9, 9), 16, 1), ((9, 9, 9), 15, 1)]
    )
    def test_a_grid_that_cannot_be_mirrored_or_is_not_padded(
        self, core: ModuleType, grid: Shape, channels: int, reach: int
    ) -> None:
        with pytest.raises(ValueError, match=r"axis|padded"):
            core.State(grid, channels, reach)

    def test_a_coarse_grid_that_does_not_cover_the_fine_one(self, core: ModuleType) -> None:
        coarse, fine, team = core.State((4, 4, 4), 16, 1), core.State((9, 8, 8), 16, 1), core.Team(1)
        coarse.seed(team, np.zeros((1, 4, 4, 4), np.float32))
        with pytest.raises(ValueError, match="cover"):
            fine.refine(team, coarse, np.zeros((1, 9, 8, 8), np.float32), (2, 2, 2))

    def test_more_steps_than_the_level_has_and_a_state_of_another_level(
        self, core: ModuleType, make_network: MakeNetwork
    ) -> None:
        packed = pack_level(network_of(make_network, 3, 16, 64), 0)
        level = core.Level("", packed.perceive, packed.dense_in, packed.bias, packed.dense_out)
        team, workspace = core.Team(1), core.Workspace()
        state = core.State((8, 8, 8), 16, 1)
        state.write(np.zeros((8, 8, 8, 16), np.float32))
        with pytest.raises(ValueError, match="steps"):
            core.sweep(team, workspace, level, state, 2, KEYS[:3], 2**31, None)
        with pytest.raises(ValueError, match="not of this level"):
            core.sweep(team, workspace, level, core.State((8, 8, 8), 16, 2), 0, KEYS[:1], 2**31, None)

    def test_instruction_sets_that_are_not_there(self, core: ModuleType, make_network: MakeNetwork) -> None:
        packed = pack_level(network_of(make_network, 3, 16, 64), 0)
        with pytest.raises(ValueError, match="mmx"):
            core.Level("mmx", packed.perceive, packed.dense_in, packed.bias, packed.dense_out)

    def test_a_callback_that_raises_stops_the_sweep_with_its_own_error(
        self, core: ModuleType, make_network: MakeNetwork
    ) -> None:
        packed = pack_level(network_of(make_network, 3, 16, 64), 0)
        level = core.Level("", packed.perceive, packed.dense_in, packed.bias, packed.dense_out)
        state = core.State((8, 8, 8), 16, 1)
        state.write(start((8, 8, 8), 16))
        seen = []

        def stop(steps: int) -> None:
            seen.append(steps)
            if steps == 2:
                raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            core.sweep(core.Team(2), core.Workspace(), level, state, 0, KEYS, 2**31, stop)
        assert seen == [1, 2]


class TestTeam:
    def test_does_with_fewer_threads_where_the_system_gives_no_more(self, core: ModuleType) -> None:
        """In a process of its own: a limit on address space leaves room for few stacks."""
        code = (
            "import resource; from nca.engine.native import _core;"
            "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
            "resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2);"
            "print(_core.Team(500).size)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert 1 <= int(done.stdout) < 500


class TestMicroBenchmarks:
    def test_are_positive_and_finite(self, core: ModuleType) -> None:
        assert 0.0 < core.fma_peak(1, 0.02) < 1e13
        assert 0.0 < core.memory_bandwidth(1, 0.02) < 1e13
