"""The native engine behind the interface of all engines."""

import gc
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest

from nca.architecture import Architecture, Level
from nca.engine import Progress, choose_engine, engines, get_engine
from nca.engine.torch_engine import TorchEngine
from nca.ensemble import predict
from nca.errors import (
    CancelledError,
    EngineUnavailableError,
    ImageTooLargeError,
    ImageTooSmallError,
    InvalidArchitectureError,
    InvalidInputError,
)
from nca.network import FloatArray, Network

pytestmark = pytest.mark.usefixtures("core")
MakeNetwork = Callable[..., Network]
IMAGE = np.random.default_rng(1).normal(size=(1, 21, 18, 13)).astype(np.float32)
MEMBERS = (0, 1, 2, 3, 4)
IN_MEMORY = 64 * 1024 * 1024
STREAMED = 20 * 1024 * 1024
"""Less than the states of `LARGE`, enough for a window of them."""
LARGE = np.random.default_rng(2).normal(size=(1, 60, 70, 80)).astype(np.float32)


def run(network: Network, image: FloatArray = IMAGE, *, seed: int = 0, threads: int = 1, budget: int = IN_MEMORY,
        members: tuple[int, ...] = MEMBERS) -> list[FloatArray]:  # fmt: skip
    engine = get_engine("native", threads=threads, memory_budget=budget)
    return list(engine.run(network, image, seed=seed, members=members))


def calm(network: Network) -> Network:
    """The same with smaller updates: random strong ones make a chaos that magnifies any rounding."""
    return Network(
        network.architecture,
        {name: array * np.float32(0.1 if "dense_out" in name else 1.0) for name, array in network.weights.items()},
    )


def same(first: list[FloatArray], second: list[FloatArray]) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


class TestBits:
    def test_same_seed_same_bits_and_another_seed_other_bits(self, make_network: MakeNetwork) -> None:
        network = make_network()
        assert same(run(network), run(network))
        assert not any(np.array_equal(a, b) for a, b in zip(run(network), run(network, seed=1), strict=True))

    @pytest.mark.parametrize("threads", [2, 3, 8])
    def test_threads_change_no_bit(self, make_network: MakeNetwork, threads: int) -> None:
        network = make_network()
        assert same(run(network, threads=threads), run(network))

    @pytest.mark.parametrize("threads", [1, 2])
    def test_members_do_not_depend_on_which_others_run_and_in_which_order(
        self, make_network: MakeNetwork, threads: int
    ) -> None:
        network = make_network()
        every = run(network)
        assert same(run(network, members=(4, 1), threads=threads), [every[4], every[1]])

    @pytest.mark.parametrize("threads", [1, 2])
    def test_streaming_from_files_changes_no_bit(self, make_network: MakeNetwork, threads: int) -> None:
        network = make_network(Architecture((Level(5, 2, (2, 2, 2)), Level(3, 5)), channels=16, hidden=8))
        in_memory = run(network, LARGE, members=(0, 1), budget=512 * 1024 * 1024)
        assert same(run(network, LARGE, members=(0, 1), budget=STREAMED, threads=threads), in_memory)

    @pytest.mark.parametrize(
        "architecture",
        [
            Architecture((Level(7, 3, (2, 2, 2)), Level(3, 4))),
            Architecture((Level(5, 2, (2, 2, 1)), Level(3, 2, (2, 1, 1)), Level(3, 3)), outputs=3, fire_rate=0.7),
            Architecture((Level(3, 3),), channels=5, hidden=7, inputs=2, outputs=2),
        ],
        ids=["two levels", "three levels and segments", "two inputs"],
    )
    def test_agrees_with_torch(self, make_network: MakeNetwork, architecture: Architecture) -> None:
        network = calm(make_network(architecture))
        image = np.random.default_rng(5).normal(size=(architecture.inputs, 21, 18, 13)).astype(np.float32)
        expected = list(TorchEngine().run(network, image, seed=4, members=(0, 1)))
        for mine, reference in zip(run(network, image, seed=4, members=(0, 1)), expected, strict=True):
            np.testing.assert_allclose(mine, reference, atol=architecture.total_steps * 1e-5)


class TestLowPrecision:
    @pytest.fixture
    def network(self, core: ModuleType, make_network: MakeNetwork) -> Network:
        if not core.has_bf16():
            pytest.skip("this processor has no bfloat16 instructions")
        return calm(make_network(Architecture((Level(7, 2, (2, 2, 2)), Level(3, 4)))))

    def test_is_near_float32_and_not_the_same(self, network: Network) -> None:
        low = list(get_engine("native-bf16").run(network, IMAGE, seed=0, members=MEMBERS))
        assert not same(low, run(network))
        np.testing.assert_allclose(low, run(network), atol=0.05)

    def test_threads_change_no_bit(self, network: Network) -> None:
        alone, shared = (
            list(get_engine("native-bf16", threads=threads).run(network, IMAGE, seed=0, members=MEMBERS))
            for threads in (1, 2)
        )
        assert same(alone, shared)

    def test_any_number_of_channels_and_hidden_units_works(self, network: Network, make_network: MakeNetwork) -> None:
        odd = calm(make_network(Architecture((Level(5, 3),), channels=18, hidden=70)))
        low = list(get_engine("native-bf16").run(odd, IMAGE, seed=0, members=(0,)))
        np.testing.assert_allclose(low, run(odd, members=(0,)), atol=0.05)

    def test_its_exact_engine_is_the_float32_one(self, network: Network) -> None:
        exact = get_engine("native-bf16").exact()
        assert exact.name == "native"
        assert exact.exact() is exact

    def test_is_never_taken_unless_asked_for(self, network: Network) -> None:
        assert choose_engine().name == "native"

    def test_is_refused_where_the_instructions_are_missing(
        self, core: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(core, "has_bf16", lambda: False)
        with pytest.raises(EngineUnavailableError, match="no bfloat16 instructions"):
            get_engine("native-bf16")


class TestPlan:
    def test_nothing_is_written_to_disk_while_the_budget_holds(
        self, make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[Any] = []
        real = tempfile.TemporaryFile

        def note() -> Any:
            opened.append(real())
            return opened[-1]

        monkeypatch.setattr(tempfile, "TemporaryFile", note)
        run(make_network(), LARGE, members=(0,), budget=512 * 1024 * 1024)
        assert opened == []
        run(make_network(), LARGE, members=(0,), budget=STREAMED)
        assert len(opened) == 2
        assert all(file.closed for file in opened)

    def test_what_cannot_fit_the_budget_is_refused_before_the_work_with_the_bytes(
        self, make_network: MakeNetwork
    ) -> None:
        seen: list[Progress] = []
        engine = get_engine("native", threads=1, memory_budget=1_000_000)
        with pytest.raises(ImageTooLargeError, match=r"needs at least \d{7} bytes; the memory budget is 1000000"):
            list(engine.run(make_network(), LARGE, seed=0, members=(0,), on_progress=seen.append))
        assert seen == []

    def test_what_cannot_fit_the_disk_is_refused_before_the_work_with_the_bytes(
        self, make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr("nca.engine.native.plan.shutil.disk_usage", lambda folder: usage(10, 10, 5))
        with pytest.raises(ImageTooLargeError, match=r"need \d{8} bytes for states"):
            run(make_network(), LARGE, budget=STREAMED)

    def test_a_disk_that_filled_up_after_the_plan_is_an_error_and_not_the_end_of_the_process(
        self, make_network: MakeNetwork
    ) -> None:
        """A limit on the size of files stands for the full disk; states are reserved whole before any is written."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, hard))
        try:
            with pytest.raises(ImageTooLargeError, match=r"no room for \d{8} bytes"):
                run(make_network(), LARGE, members=(0,), budget=STREAMED)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, ignored)


class TestProgress:
    @pytest.mark.parametrize("threads", [1, 2])
    def test_reports_every_step_in_the_callers_thread_and_ends_at_one(
        self, make_network: MakeNetwork, threads: int
    ) -> None:
        seen: list[Progress] = []
        callers = set()

        def note(progress: Progress) -> None:
            seen.append(progress)
            callers.add(threading.get_ident())

        engine = get_engine("native", threads=threads)
        predict(engine, make_network(), IMAGE, seed=0, members=3, on_progress=note)
        fractions = [one.fraction for one in seen]
        assert len(seen) == 3 * 7
        assert fractions == sorted(set(fractions))
        assert fractions[-1] == 1.0
        assert callers == {threading.get_ident()}

    @pytest.mark.parametrize("threads", [1, 2])
    def test_a_callback_that_raises_stops_the_run_and_leaves_no_thread(
        self, make_network: MakeNetwork, threads: int
    ) -> None:
        before = threading.active_count()
        seen = []

        def stop(progress: Progress) -> None:
            seen.append(progress)
            if len(seen) == 9:
                raise CancelledError

        with pytest.raises(CancelledError):
            predict(get_engine("native", threads=threads), make_network(), IMAGE, seed=0, members=50, on_progress=stop)
        gc.collect()
        assert len(seen) == 9
        assert threading.active_count() == before

    def test_a_caller_that_goes_away_ends_the_run(self, make_network: MakeNetwork) -> None:
        before = threading.active_count()
        results = get_engine("native", threads=2).run(make_network(), IMAGE, seed=0, members=range(50))
        next(iter(results))
        del results
        gc.collect()
        assert threading.active_count() == before


class TestBadInput:
    @pytest.mark.parametrize(
        "image",
        [IMAGE[0], IMAGE.astype(np.float64), np.concatenate([IMAGE, IMAGE]), np.full_like(IMAGE, np.nan)],
        ids=["no channel axis", "double precision", "too many inputs", "not finite"],
    )
    def test_an_image_it_was_not_made_for(self, make_network: MakeNetwork, image: FloatArray) -> None:
        with pytest.raises(InvalidInputError):
            run(make_network(), image)

    def test_an_image_that_is_not_contiguous_is_fine(self, make_network: MakeNetwork) -> None:
        mirrored = IMAGE[:, ::-1, :, ::-1]
        assert same(run(make_network(), mirrored), run(make_network(), np.ascontiguousarray(mirrored)))

    def test_a_level_smaller_than_its_kernel(self, make_network: MakeNetwork) -> None:
        with pytest.raises(ImageTooSmallError):
            run(make_network(), IMAGE[:, :, :, :4])

    @pytest.mark.parametrize("change", ["nan", "double", "shape", "missing"])
    def test_weights_that_are_not_what_they_should_be(self, make_network: MakeNetwork, change: str) -> None:
        network = make_network()
        weights, name = dict(network.weights), "level1.dense_in.weight"
        if change == "nan":
            weights[name] = np.full_like(weights[name], np.nan)
        elif change == "double":
            weights[name] = weights[name].astype(np.float64)
        elif change == "shape":
            weights[name] = weights[name].T
        else:
            del weights[name]
        with pytest.raises(InvalidArchitectureError):
            run(Network(network.architecture, weights))


class TestChoice:
    def test_auto_takes_the_native_engine_where_it_runs(self) -> None:
        assert choose_engine().name == "native"
        assert get_engine().name == "native"

    def test_torch_can_be_asked_for(self) -> None:
        assert get_engine("torch").name == "torch"

    def test_an_unknown_engine_is_refused_by_name(self) -> None:
        with pytest.raises(EngineUnavailableError, match="abacus"):
            get_engine("abacus")

    def test_where_it_was_not_built_torch_serves_and_says_so_once(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setitem(sys.modules, "nca.engine.native._core", None)
        monkeypatch.delattr("nca.engine.native._core")
        assert [one.name for one in engines() if one.runs] == ["torch"]
        with caplog.at_level("WARNING"):
            assert [get_engine().name for _ in range(2)] == ["torch", "torch"]
        assert [record.message for record in caplog.records if "torch serves" in record.message] == [
            record.message for record in caplog.records
        ]
        assert len(caplog.records) == 1
        with pytest.raises(EngineUnavailableError, match="not built"):
            get_engine("native")


PI = """
import resource
import numpy as np
limit = 2 * 1024**3
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from nca.architecture import Architecture, Level
from nca.engine import get_engine
from nca.ensemble import predict
from nca.network import Network
from nca.weights import expected

architecture = Architecture((Level(7, 1, (4, 4, 4)), Level(3, 2)))
rng = np.random.default_rng(0)
shapes = expected(architecture).items()
weights = {name: np.abs(rng.normal(0.0, 0.1, shape)).astype(np.float32) for name, shape in shapes}
image = rng.standard_normal((1, 512, 512, 256), dtype=np.float32)
(prediction,) = predict(get_engine("native"), Network(architecture, weights), image, seed=0, members=2)
assert prediction.finite and prediction.mean.shape == (512, 512, 256) and 0.0 < prediction.mean.mean() < 1.0
lines = open("/proc/self/status").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
"""
"""Not `getrusage`: its ru_maxrss begins with what the parent held when it started the child."""


class TestMemory:
    def test_a_scan_of_67_million_voxels_runs_in_the_address_space_of_a_raspberry_pi(self) -> None:
        """512 x 512 x 256 has 4.3 GB of states; the process may have 2 GB, everything included."""
        done = subprocess.run(
            [sys.executable, "-c", PI], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
        )
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) * 1024 < 2 * 1024**3

    def test_runs_do_not_add_up(self, make_network: MakeNetwork) -> None:
        network, process = make_network(Architecture((Level(3, 1),))), psutil.Process()
        resident = []
        for _ in range(12):
            run(network, LARGE, members=(0,), budget=512 * 1024 * 1024)
            resident.append(process.memory_info().rss)
        assert resident[-1] - resident[5] < 20e6  # the states of one run take 24 MB; the allocator keeps a few at first
