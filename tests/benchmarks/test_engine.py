import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import stopwatch
from benchmarks.cases import FULL, Case, Plan, noise
from benchmarks.compiled import CompiledEngine
from benchmarks.engine import main
from benchmarks.engines import NATIVE, available
from benchmarks.roofs import Roofs
from benchmarks.rows import make_row
from benchmarks.scaling import fit
from benchmarks.stopwatch import interleaved, seconds_of
from benchmarks.weights import network_for, prefix
from benchmarks.work import work_of
from nca.architecture import Architecture, Level
from nca.engine import Engine, Progress, ProgressCallback, get_engine
from nca.network import FloatArray, Network
from nca.weights import validate

PROMISED = {
    "case",
    "engine",
    "members",
    "ms",
    "voxel_steps_per_s",
    "ratio_to_published",
    "fma_peak_share",
    "peak_rss_mb",
}
TWO_LEVELS = Architecture((Level(7, 20, (4, 4, 4)), Level(3, 40)))


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A quick run: its folder and its rows."""
    folder = tmp_path_factory.mktemp("bench-out")
    assert main(["--quick", "--json", str(folder / "engine.json")]) == 0
    rows: list[dict[str, Any]] = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
    return folder, rows


def compared(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The rows that compare engines, by case."""
    chosen = [row for row in rows if row["ratio_to_published"] is not None]
    return {case: list(group) for case, group in groupby(chosen, key=lambda row: str(row["case"]))}


class TestQuickRun:
    def test_every_row_has_what_is_promised(self, quick: tuple[Path, list[dict[str, Any]]]) -> None:
        _, rows = quick
        assert all(row.keys() >= PROMISED for row in rows)
        assert {row["case"] for row in rows} >= {"hippocampus", "prostate", "interior k=3", "interior k=7"}

    def test_ratios_are_those_of_the_times(self, quick: tuple[Path, list[dict[str, Any]]]) -> None:
        for group in compared(quick[1]).values():
            published = next(row["ms"] for row in group if row["engine"] == "published")
            assert {row["engine"] for row in group} >= {"published", "torch"}
            for row in group:
                assert row["ratio_to_published"] == pytest.approx(published / row["ms"])
                assert row["peak_rss_mb"] > 20
                assert row["members"] == 10

    def test_speed_is_the_work_over_the_time(self, quick: tuple[Path, list[dict[str, Any]]]) -> None:
        for group in compared(quick[1]).values():
            works = {row["voxel_steps_per_s"] * row["ms"] for row in group}
            assert max(works) == pytest.approx(min(works))

    def test_a_row_says_whether_it_was_extrapolated(self, quick: tuple[Path, list[dict[str, Any]]]) -> None:
        for group in compared(quick[1]).values():
            for row in group:
                pairs = [(row[f"{name}_timed"], row[name]) for name in ("steps", "members", "grid")]
                assert row["extrapolated"] == any(run != full for run, full in pairs)

    def test_shares_of_the_peak_are_known_where_the_native_engine_is(
        self, quick: tuple[Path, list[dict[str, Any]]]
    ) -> None:
        native = bool(available(NATIVE, threads=1))
        for group in compared(quick[1]).values():
            assert all((row["fma_peak_share"] is not None) == native for row in group)

    def test_the_border_is_set_against_the_interior(self, quick: tuple[Path, list[dict[str, Any]]]) -> None:
        rows = {(row["case"], row["engine"], row["threads"]): row for row in quick[1]}
        borders = [row for row in quick[1] if row["case"] == "border 18x25x18"]
        assert 1 in [row["threads"] for row in borders]
        for row in borders:
            interior = rows["interior k=7", row["engine"], row["threads"]]
            ratio = interior["voxel_steps_per_s"] / row["voxel_steps_per_s"]
            assert row["border_ratio"] == pytest.approx(ratio)

    def test_scaling_is_fitted_for_every_number_of_threads(self, quick: tuple[Path, list[dict[str, Any]]]) -> None:
        fits = [row for row in quick[1] if row["case"] == "scaling fit"]
        assert 1 in [row["threads"] for row in fits]
        assert all(0.0 <= row["r_squared"] <= 1.0 for row in fits)

    def test_draws_both_pictures(self, quick: tuple[Path, list[dict[str, Any]]]) -> None:
        for name in ("roofline.png", "scaling.png"):
            assert (quick[0] / name).read_bytes().startswith(b"\x89PNG")


class TestCases:
    def test_the_project_runs_hippocampus_and_prostate_in_full(self) -> None:
        assert [case.native == case.full for case in FULL] == [True, True, False]

    def test_what_is_extrapolated_fits_every_level(self) -> None:
        for case in FULL:
            assert case.architecture.shapes(case.other.grid)
            assert len(case.other.steps) == len(case.architecture.levels)


class FakeEngine:
    """An engine on a clock of its own: 3 s to prepare a member, 2 s a coarse step, 5 s a fine one."""

    name = "fake"

    def __init__(self) -> None:
        self.now = 0.0

    def exact(self) -> Engine:
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
        coarse, total = network.architecture.levels[0].steps, network.architecture.total_steps
        for position in range(len(members)):
            self.now += 3.0
            for step in range(total + 1):
                if on_progress is not None:
                    on_progress(Progress(position, len(members), step, total))
                self.now += 0.0 if step == total else 2.0 if step < coarse else 5.0
            yield image


class TestStopwatch:
    @pytest.mark.parametrize(
        "plan",
        [
            Plan((20, 40), 10, (32, 32, 24)),
            Plan((20, 40), 3, (32, 32, 24)),
            Plan((2, 4), 2, (32, 32, 24)),
        ],
    )
    def test_extrapolates_steps_of_each_level_and_members(self, monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
        assert self.seconds(monkeypatch, plan) == pytest.approx(10 * (3 + 20 * 2 + 40 * 5))

    def test_extrapolates_voxels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        part = Plan((1, 1), 1, (32, 32, 16))
        assert self.seconds(monkeypatch, part) == pytest.approx(10 * (3 + 20 * 2 + 40 * 5) * 24 / 16)

    def seconds(self, monkeypatch: pytest.MonkeyPatch, plan: Plan) -> float:
        engine = FakeEngine()
        monkeypatch.setattr(stopwatch, "perf_counter", lambda: engine.now)
        return seconds_of(engine, Case("fake", (32, 32, 24), TWO_LEVELS, plan, plan, rounds=1), plan)

    def test_takes_sides_in_turn_and_their_medians(self) -> None:
        order: list[str] = []
        times = iter([1.0, 10.0, 3.0, 30.0, 2.0, 20.0])

        def side(name: str) -> float:
            order.append(name)
            return next(times)

        assert interleaved({"a": lambda: side("a"), "b": lambda: side("b")}, rounds=3) == {"a": 2.0, "b": 20.0}
        assert order == ["a", "b"] * 3


class TestWork:
    def test_counts_what_fired_cells_need(self) -> None:
        work = work_of(Architecture((Level(3, 2),)), (4, 5, 6), members=3)
        assert work.voxel_steps == 4 * 5 * 6 * 2 * 3
        assert work.multiply_adds == work.voxel_steps * 0.5 * (27 * 16 + 2 * 16 * 64 + 64 * 16)
        assert work.bytes == work.voxel_steps * (64 + 32)


class TestRow:
    def test_is_set_under_the_peaks_where_they_are_known(self) -> None:
        work = work_of(Architecture((Level(3, 2),)), (4, 5, 6))
        make = partial(make_row, "case", "engine", work=work, seconds=0.5, members=1, threads=1)
        assert (make(roofs=Roofs()).fma_peak_share, make(roofs=Roofs()).bandwidth_share) == (None, None)
        known = make(roofs=Roofs(4 * work.multiply_adds, 8 * work.bytes))
        assert known.fma_peak_share == pytest.approx(0.5)
        assert known.bandwidth_share == pytest.approx(0.25)


class TestWeights:
    def test_are_the_shipped_ones_stretched_over_the_steps_where_kernels_fit(self) -> None:
        network = network_for(TWO_LEVELS)
        validate(TWO_LEVELS, network.weights)
        shipped = network_for(Architecture((Level(7, 8, (2, 2, 2)), Level(3, 20))))
        assert np.array_equal(network.weights["level1.dense_in.weight"], shipped.weights["level1.dense_in.weight"])
        assert np.array_equal(network.weights["level1.norm.mean"][::2], shipped.weights["level1.norm.mean"])

    def test_are_random_where_none_fit(self) -> None:
        architecture = Architecture((Level(5, 3, (2, 2, 2)), Level(3, 2)), channels=4, hidden=8)
        validate(architecture, network_for(architecture).weights)

    def test_a_prefix_keeps_the_first_steps(self) -> None:
        network = prefix(network_for(TWO_LEVELS), (2, 3))
        validate(network.architecture, network.weights)
        assert network.architecture.total_steps == 5


class TestCompiledEngine:
    @pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracing
    def test_runs_what_the_torch_engine_runs(self) -> None:
        network, image = prefix(network_for(TWO_LEVELS), (1, 2)), noise((16, 16, 16))
        expected = list(get_engine("torch").run(network, image, seed=1, members=(0, 1)))
        compiled = list(CompiledEngine(backend="eager").run(network, image, seed=1, members=(0, 1)))
        for mine, ours in zip(compiled, expected, strict=True):
            np.testing.assert_allclose(mine, ours, atol=1e-6)


class TestFit:
    def test_finds_a_line(self) -> None:
        found = fit([1e6, 2e6, 5e6], [12.0, 22.0, 52.0])
        assert found["ms_per_million_voxel_steps"] == pytest.approx(10.0)
        assert found["intercept_ms"] == pytest.approx(2.0)
        assert found["r_squared"] == pytest.approx(1.0)
        assert found["exponent"] < 1.0
