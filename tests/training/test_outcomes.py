from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.volume import Volume
from model_store.loaded import on_native_grid, prepare
from model_store.manifest import InputContract, Manifest, Preprocessing
from nca.architecture import Architecture, Level
from nca.engine import get_engine
from nca.ensemble import predict
from nca.network import Network
from nca.quality import dice
from training.artefacts import CLEAN, KINDS, PAPER, SEVERITIES, Condition, degrade
from training.config import TrainingConfig
from training.data import Case, load_cases
from training.outcomes import (
    SEED,
    Outcome,
    Subject,
    condition_rng,
    conditions,
    observe,
    observe_scan,
    read_outcomes,
    write_outcomes,
)

MakeOutcome = Callable[..., Outcome]
TWO = Architecture((Level(3, 2, (2, 2, 2)), Level(3, 2)), channels=6, hidden=8, outputs=2)


class TestConditions:
    def test_are_clean_the_papers_and_every_kind_once_more(self) -> None:
        found = conditions("a.nii.gz", seed=1)
        assert found[: 1 + len(PAPER)] == [Condition(CLEAN), *PAPER]
        assert {one.kind for one in found} == {CLEAN, *KINDS}
        assert len(found) == len(set(found))
        assert all(one.severity in SEVERITIES for one in found[1:])

    def test_depend_on_the_scans_name_and_the_seed_alone(self) -> None:
        assert conditions("a.nii.gz", seed=1) == conditions("a.nii.gz", seed=1)
        names = [f"scan {number}" for number in range(20)]
        assert len({tuple(conditions(name, seed=1)) for name in names}) > 15
        assert [conditions(name, seed=1) for name in names] != [conditions(name, seed=2) for name in names]

    def test_every_severity_of_every_kind_where_that_is_wanted(self) -> None:
        found = conditions("a.nii.gz", seed=1, each_severity=True)
        assert found[0] == Condition(CLEAN)
        assert set(found[1:]) == {Condition(kind, severity) for kind in KINDS for severity in SEVERITIES}
        assert len(found) == 1 + 5 * len(KINDS)

    def test_over_many_scans_every_severity_of_every_kind_comes_up(self) -> None:
        found = {one for number in range(150) for one in conditions(f"scan {number}", seed=0)}
        assert len(found) == 1 + 5 * len(KINDS)


class TestOutcomeFile:
    @pytest.fixture
    def outcomes(self, make_outcome: MakeOutcome) -> list[Outcome]:
        odd = make_outcome("c, d.nii.gz", nqm=0.1 + 0.2, dice=1 / 3, condition=Condition("bias", 4), structure=2)
        empty = make_outcome("e.nii.gz", dice=0.0, nqm=None, breaches=("extent_out_of_range", "intensity_unusual"))
        broken = replace(empty, observed=replace(empty.observed, finite=False, members=1))
        sure = replace(empty, observed=replace(empty.observed, nqm=0.0))  # of an empty mask, and yet defined
        return [make_outcome("a.nii.gz"), odd, empty, broken, sure]

    def test_survives_the_way_there_and_back_to_the_last_digit(self, outcomes: list[Outcome], tmp_path: Path) -> None:
        write_outcomes(outcomes, tmp_path / "outcomes.csv")
        assert read_outcomes(tmp_path / "outcomes.csv") == outcomes

    def test_is_a_table_with_a_column_for_every_figure(self, outcomes: list[Outcome], tmp_path: Path) -> None:
        write_outcomes(outcomes, tmp_path / "outcomes.csv")
        header, first, *_ = (tmp_path / "outcomes.csv").read_text().splitlines()
        assert header.split(",") == [
            "scan", "kind", "severity", "structure", "dice", "breaches", "observed_nqm", "finite", "volume_ml",
            "members", "nqm", "log_nqm", "mask_nqm", "disagreement", "entropy", "stray", "border",
        ]  # fmt: skip
        assert first.startswith("a.nii.gz,clean,0,0,0.9,,0.05,1,3.0,3,0.05,")

    def test_no_outcomes_are_an_empty_table(self, tmp_path: Path) -> None:
        write_outcomes([], tmp_path / "outcomes.csv")
        assert read_outcomes(tmp_path / "outcomes.csv") == []


class Bench:
    """A random network, balls to judge it on, and how it would be run."""

    def __init__(self, cases: list[Case], network: Network, contract: InputContract) -> None:
        self.cases = cases
        self.subject = Subject(
            network, Preprocessing(spacing_mm=(1.0, 1.0, 1.0)), contract, get_engine("torch", threads=1), members=3
        )


@pytest.fixture
def make_bench(
    ball_folder: Path,
    tiny_config: Callable[..., TrainingConfig],
    make_network: Callable[..., Network],
    make_manifest: Callable[..., Manifest],
) -> Callable[..., Bench]:
    def make(architecture: Architecture | None = None, **contract: Any) -> Bench:
        changes = {} if architecture is None else {"architecture": architecture}
        expected = make_manifest(**changes).contract.model_copy(update=contract)
        return Bench(load_cases(ball_folder, config=tiny_config())[:2], make_network(**changes), expected)

    return make


class TestObserveScan:
    def test_follows_the_ensemble_as_it_grows(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench()
        case, subject = bench.cases[0], bench.subject
        found = observe_scan(case.volume, case.truth, subject, name=case.name, condition=Condition(CLEAN))
        assert [one.observed.members for one in found] == [1, 2, 3]
        for one in found:
            prepared = prepare(case.volume, subject.preprocessing)
            predictions = predict(
                subject.engine, subject.network, prepared.image, seed=SEED, members=one.observed.members
            )
            (result,) = on_native_grid(prepared, predictions)
            assert one.dice == dice(result.mask, case.truth[0])
            assert one.observed == result.observed

    def test_of_several_segments_the_union_comes_last(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(TWO)
        case = bench.cases[0]
        upper = np.zeros_like(case.truth[0])
        upper[..., case.truth.shape[-1] // 2 :] = True
        truth = np.stack([case.truth[0] & upper, case.truth[0] & ~upper])
        found = observe_scan(case.volume, truth, bench.subject, name=case.name, condition=Condition(CLEAN))
        assert [one.structure for one in found] == [0, 1, 2] * 3
        prepared = prepare(case.volume, bench.subject.preprocessing)
        predictions = predict(bench.subject.engine, bench.subject.network, prepared.image, seed=SEED, members=3)
        masks = [result.mask for result in on_native_grid(prepared, predictions)]
        assert [one.dice for one in found[-3:]] == [
            dice(masks[0], truth[0]), dice(masks[1], truth[1]), dice(masks[2], case.truth[0])
        ]  # fmt: skip

    def test_breaches_of_the_contract_stand_by_their_codes(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench(spacing_mm=((2.0, 3.0),) * 3, extent_mm=((100.0, 200.0),) * 3)
        case = bench.cases[0]
        found = observe_scan(case.volume, case.truth, bench.subject, name=case.name, condition=Condition(CLEAN))
        assert {one.breaches for one in found} == {("spacing_out_of_range", "extent_out_of_range")}

    def test_a_scan_too_small_for_the_network_has_no_outcome(self, make_bench: Callable[..., Bench]) -> None:
        bench = make_bench()
        small = Volume(np.random.default_rng(0).normal(size=(3, 3, 3)).astype(np.float32), np.eye(4))
        truth = np.zeros((1, 3, 3, 3), bool)
        assert observe_scan(small, truth, bench.subject, name="small", condition=Condition(CLEAN)) == []


class TestObserve:
    @pytest.fixture
    def bench(self, make_bench: Callable[..., Bench]) -> Bench:
        return make_bench()

    def test_every_scan_under_every_condition_of_its_own(self, bench: Bench) -> None:
        done: list[None] = []
        found = observe(bench.cases, bench.subject, seed=5, on_case=lambda: done.append(None))
        expected = {(case.name, one) for case in bench.cases for one in conditions(case.name, seed=5)}
        assert {(one.scan, one.condition) for one in found} == expected
        assert len(found) == 3 * len(expected)
        assert len(done) == 2

    def test_what_becomes_of_a_scan_does_not_depend_on_the_others(self, bench: Bench) -> None:
        both, alone = (observe(cases, bench.subject, seed=5) for cases in (bench.cases, bench.cases[1:]))
        assert [one for one in both if one.scan == bench.cases[1].name] == alone

    def test_damage_can_be_done_again(self, bench: Bench) -> None:
        found = observe(bench.cases, bench.subject, seed=5)
        case = bench.cases[0]
        for condition in conditions(case.name, seed=5):
            rng = condition_rng(case.name, condition, seed=5)
            volume, truth = degrade(case.volume, case.truth, condition, rng=rng)
            again = observe_scan(volume, truth, bench.subject, name=case.name, condition=condition)
            assert [one for one in found if (one.scan, one.condition) == (case.name, condition)] == again
