from collections.abc import Callable
from dataclasses import replace

import pytest

from model_store.manifest import InputContract, Manifest
from nca.architecture import Architecture, Level
from nca.errors import UncalibratableError
from nca.gate import Policy
from training.artefacts import CLEAN, Condition
from training.calibrate import Calibrating, calibrate
from training.config import CalibrationSection
from training.outcomes import Outcome

MakeOutcome = Callable[..., Outcome]
SECTION = CalibrationSection(members=3, min_dice=0.8, alpha=0.1)
NQMS = [0.01 * step for step in range(1, 13)]
"""Of one scan each; those of larger ensembles are a little higher."""
SPIKE, BLUR = Condition("spike", 2), Condition("blur", 5)


def falling(make_outcome: MakeOutcome, *, structure: int = 0, intercept: float = 0.95) -> list[Outcome]:
    """Scans on the line Dice = intercept - NQM / members; beyond an NQM of 0.5, blurred ones far below it."""
    found = []
    for number, nqm in enumerate(NQMS):
        for members in (1, 2, 3):
            seen = nqm * members
            condition = Condition(CLEAN) if number % 2 else SPIKE
            common = {"members": members, "structure": structure}
            found.append(make_outcome(f"scan {number}", dice=intercept - nqm, nqm=seen, condition=condition, **common))
            found.append(make_outcome(f"scan {number}", dice=0.2, nqm=seen + 0.5, condition=BLUR, **common))
    return found


@pytest.fixture
def contract(make_manifest: Callable[..., Manifest]) -> InputContract:
    """Volumes of 1 to 6 ml, at most 5 % on the border."""
    return make_manifest().contract.model_copy(update={"volume_ml": ((1.0, 6.0),), "border_max": (0.05,)})


class TestLines:
    @pytest.fixture
    def calibrating(self, make_outcome: MakeOutcome, contract: InputContract) -> Calibrating:
        return calibrate(falling(make_outcome), contract, section=SECTION, data="made up")

    def test_there_is_one_for_every_ensemble_from_two_members(self, calibrating: Calibrating) -> None:
        (structure,) = calibrating.calibration.structures
        assert [line.members for line in structure.lines] == [2, 3]

    def test_are_drawn_as_far_as_dice_falls(self, calibrating: Calibrating) -> None:
        (structure,) = calibrating.calibration.structures
        for line in structure.lines:
            assert line.points == len(NQMS)
            assert (line.slope, line.intercept) == (pytest.approx(-1 / line.members), pytest.approx(0.95))
            assert line.pearson == pytest.approx(-1.0)

    def test_an_undefined_nqm_is_on_no_line(self, make_outcome: MakeOutcome, contract: InputContract) -> None:
        empty = [make_outcome("empty", dice=0.0, nqm=None, members=members) for members in (1, 2, 3)]
        found = calibrate([*falling(make_outcome), *empty], contract, section=SECTION, data="made up")
        assert [line.points for line in found.calibration.structures[0].lines] == [len(NQMS)] * 2

    def test_too_few_outcomes_as_far_as_dice_falls_are_refused(
        self, make_outcome: MakeOutcome, contract: InputContract
    ) -> None:
        few = [one for one in falling(make_outcome) if one.scan not in ("scan 0", "scan 1", "scan 2")]
        with pytest.raises(UncalibratableError):
            calibrate(few, contract, section=SECTION, data="made up")

    def test_dice_that_rises_with_nqm_is_refused(self, make_outcome: MakeOutcome, contract: InputContract) -> None:
        rising = [
            make_outcome(f"scan {number}", dice=0.5 + nqm, nqm=nqm, members=members)
            for number, nqm in enumerate(NQMS)
            for members in (2, 3)
        ]
        with pytest.raises(UncalibratableError):
            calibrate(rising, contract, section=SECTION, data="made up")


class TestRows:
    def test_hold_every_outcome_of_the_whole_ensemble_with_its_prediction(
        self, make_outcome: MakeOutcome, contract: InputContract
    ) -> None:
        outcomes = falling(make_outcome)
        found = calibrate(outcomes, contract, section=SECTION, data="made up")
        whole = [one for one in outcomes if one.observed.members == 3]
        assert [(row.scan, row.condition, row.dice) for row in found.rows] == [
            (one.scan, str(one.condition), one.dice) for one in whole
        ]
        regression = found.calibration.structures[0].regression
        for row, one in zip(found.rows, whole, strict=True):
            assert one.observed.evidence is not None
            assert row.predicted == regression.predicted_dice(one.observed.evidence)
            assert not row.refused

    def test_what_several_scans_of_a_patient_say_counts_as_one(
        self, make_outcome: MakeOutcome, contract: InputContract
    ) -> None:
        outcomes = [replace(one, scan=f"{one.scan}_{phase}") for one in falling(make_outcome) for phase in "ab"]
        found = calibrate(outcomes, contract, section=SECTION, data="made up", patient="^[^_]+")
        assert {row.scan for row in found.rows} == {one.scan for one in falling(make_outcome)}
        assert set(found.gates[0].calibrated.scan.tolist()) == set(range(len({row.scan for row in found.rows})))
        assert len(found.calibration.scans) == 2 * len({row.scan for row in found.rows})

    def test_the_regression_sees_every_condition(self, make_outcome: MakeOutcome, contract: InputContract) -> None:
        outcomes = falling(make_outcome)
        found = calibrate(outcomes, contract, section=SECTION, data="made up")
        dices = [one.dice for one in outcomes if one.observed.members == 3]
        assert found.calibration.structures[0].regression.intercept == pytest.approx(sum(dices) / len(dices))

    def test_what_the_gate_would_flag_anyhow_is_marked(
        self, make_outcome: MakeOutcome, contract: InputContract
    ) -> None:
        odd = {
            "empty": make_outcome("empty", dice=0.0, nqm=None, volume_ml=0.0),
            "breach": make_outcome("breach", breaches=("extent_out_of_range",)),
            "large": make_outcome("large", volume_ml=6.1),
            "cut": make_outcome("cut", border=0.06),
            "good": make_outcome("good", volume_ml=6.0, border=0.05),
        }
        found = calibrate([*falling(make_outcome), *odd.values()], contract, section=SECTION, data="made up")
        rows = {row.scan: row for row in found.rows}
        assert {name: rows[name].refused for name in odd} == {
            "empty": True, "breach": True, "large": True, "cut": True, "good": False
        }  # fmt: skip
        assert rows["empty"].predicted == 0.0

    def test_the_manifests_part_says_what_it_rests_on(self, make_outcome: MakeOutcome, contract: InputContract) -> None:
        calibration = calibrate(falling(make_outcome), contract, section=SECTION, data="made up").calibration
        assert (calibration.data, calibration.members, calibration.min_dice, calibration.alpha) == (
            "made up", 3, 0.8, 0.1
        )  # fmt: skip
        assert calibration.scans == tuple(sorted(f"scan {number}" for number in range(len(NQMS))))
        assert calibration.outcomes == 2 * len(NQMS)
        assert set(calibration.kinds) == {"clean", "spike", "blur"}


class TestSeveralStructures:
    def test_each_is_calibrated_by_its_own_outcomes(
        self, make_outcome: MakeOutcome, make_manifest: Callable[..., Manifest]
    ) -> None:
        architecture = Architecture((Level(3, 3),), channels=6, hidden=8, outputs=2)
        contract = make_manifest(architecture=architecture).contract
        contract = contract.model_copy(update={"volume_ml": ((0.0, 9.0), (0.0, 9.0), (4.0, 9.0))})
        intercepts = (0.95, 0.90, 0.85)
        outcomes = [
            one
            for structure, intercept in enumerate(intercepts)
            for one in falling(make_outcome, structure=structure, intercept=intercept)
        ]
        found = calibrate(outcomes, contract, section=SECTION, data="made up")
        lines = [one.lines[-1].intercept for one in found.calibration.structures]
        assert lines == [pytest.approx(intercept) for intercept in intercepts]
        assert found.calibration.outcomes == 2 * len(NQMS)  # of each structure
        assert len(found.rows) == 3 * 2 * len(NQMS)
        assert {row.structure for row in found.rows if row.refused} == {2}  # 3 ml, where 4 are the least


class TestGates:
    def test_judge_as_the_calibration_says(self, make_outcome: MakeOutcome, contract: InputContract) -> None:
        (gate,) = calibrate(falling(make_outcome), contract, section=SECTION, data="made up").gates
        assert (gate.members, gate.plausible.volume_ml) == (3, (1.0, 6.0))
        good, bad = (make_outcome(nqm=nqm).observed for nqm in (0.1, 0.6))
        policy = Policy(min_dice=0.8, alpha=0.1, rule="nqm")
        assert gate.judge(good, policy).verdict == "accept"
        assert gate.judge(bad, policy).verdict == "flag"  # on the line Dice is 0.75 there
        assert gate.judge(good, policy).nqm_threshold == pytest.approx(0.45)

    def test_rest_on_the_rows(self, make_outcome: MakeOutcome, contract: InputContract) -> None:
        calibrating = calibrate(falling(make_outcome), contract, section=SECTION, data="made up")
        (gate,) = calibrating.gates
        assert gate.calibrated.dice.tolist() == [row.dice for row in calibrating.rows]
        assert gate.calibrated.predicted.tolist() == [row.predicted for row in calibrating.rows]
        assert set(gate.calibrated.scan.tolist()) == set(range(len(NQMS)))
