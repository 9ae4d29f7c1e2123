import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from PIL import Image

from imaging.errors import SeveralVolumesError
from imaging.limits import Limits
from imaging.nifti import read_nifti
from imaging.read import read_scan
from imaging.request import Request
from model_store.calibration import CalibrationRow
from model_store.loaded import LoadedVersion, load_version, prepare
from model_store.manifest import InputContract, LowPrecision, Manifest, Preprocessing
from model_store.registry import Registry
from model_store.signals import input_signals
from nca.architecture import Architecture, Level
from nca.engine import Engine, get_engine
from nca.ensemble import predict
from nca.errors import CancelledError
from nca.gate import Policy, Rule
from worker.pipeline import STAGES, Options, segment_scan
from worker.record import Origin, Record

ORIGIN = Origin("a job", datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC))
ENGINE: Engine = get_engine("torch", threads=1)
Publish = Callable[..., Manifest]
ScanFile = Callable[..., Path]


class Run:
    """The pipeline with a tiny version, into a folder of its own."""

    def __init__(self, folder: Path, publish: Publish) -> None:
        self.folder = folder
        self._publish = publish

    def version(self, **changes: Any) -> LoadedVersion:
        store = self.folder / f"store{len(list(self.folder.glob('store*')))}"
        self._publish(store, **changes)
        return load_version(Registry(store, shipped=None), "tiny")

    def __call__(
        self,
        scan: Path,
        version: LoadedVersion | None = None,
        *,
        members: int = 10,
        min_dice: float = 0.8,
        alpha: float = 0.05,
        rule: Rule = "conformal",
        engine: Engine = ENGINE,
        **rest: Any,
    ) -> Record:
        self.out = self.folder / "out"
        self.out.mkdir(exist_ok=True)
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return segment_scan(
            [scan],
            version or self.version(),
            engine=engine,
            options=Options(policy=Policy(min_dice, alpha, rule), members=members, seed=0),
            origin=ORIGIN,
            limits=Limits(),
            out=self.out,
            workdir=work,
            **rest,
        ).record


@pytest.fixture
def run(tmp_path: Path, publish_tiny: Publish) -> Run:
    return Run(tmp_path, publish_tiny)


def with_contract(manifest: Manifest, **changes: Any) -> InputContract:
    return manifest.contract.model_copy(update=changes)


class TestScanForViewers:
    def test_of_dicom_it_is_written_voxel_for_voxel(
        self, run: Run, tmp_path: Path, make_slices: Callable[..., list[Path]]
    ) -> None:
        make_slices(tmp_path / "series", 12)
        run(tmp_path / "series", scan_name="scan.nii.gz")
        scan, mask = (Nifti1Image.from_filename(run.out / name) for name in ("scan.nii.gz", "mask.nii.gz"))
        assert scan.get_data_dtype() == np.int16  # half of float32, and nothing is lost
        volume = read_scan(Request([tmp_path / "series"], tmp_path, Limits()))
        np.testing.assert_array_equal(np.asarray(scan.dataobj), volume.array)
        np.testing.assert_allclose(scan.affine, mask.affine)

    def test_a_nifti_file_is_not_written_again(self, run: Run, scan_file: ScanFile) -> None:
        run(scan_file(), scan_name="scan.nii.gz")
        assert not (run.out / "scan.nii.gz").exists()


class TestResult:
    @pytest.mark.parametrize(
        "affine",
        [
            np.eye(4),
            np.array([[0, 0, -1.0, 9], [1.0, 0, 0, 4], [0, -1.0, 0, 2], [0, 0, 0, 1]]),
            np.diag([-1.0, -1.0, 2.5, 1.0]),
        ],
        ids=["RAS", "rotated axes", "anisotropic LPS"],
    )
    def test_mask_and_uncertainty_lie_on_the_scans_own_grid(
        self, run: Run, scan_file: ScanFile, affine: np.ndarray
    ) -> None:
        scan = scan_file(affine=affine)
        record = run(scan)
        source = Nifti1Image.from_filename(scan)
        names = ("mask.nii.gz", "uncertainty.nii.gz")
        mask, uncertainty = (Nifti1Image.from_filename(run.out / name) for name in names)
        for one in (mask, uncertainty):
            assert one.shape == source.shape
            np.testing.assert_allclose(one.affine, source.affine, atol=1e-6)
        assert mask.get_data_dtype() == np.uint8
        voxels = np.asarray(mask.dataobj)
        assert set(np.unique(voxels)) <= {0, 1}
        voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
        assert record.volume_ml == pytest.approx(float(voxels.sum()) * voxel_ml)

    def test_the_preview_is_a_picture(self, run: Run, scan_file: ScanFile) -> None:
        run(scan_file())
        with Image.open(run.out / "preview.png") as picture:
            assert picture.format == "PNG"

    def test_the_same_scan_version_and_seed_give_the_same_bytes(self, run: Run, scan_file: ScanFile) -> None:
        version, scan = run.version(), scan_file()
        names = ("mask.nii.gz", "uncertainty.nii.gz", "preview.png")
        first_record = run(scan, version)
        first = [(run.out / name).read_bytes() for name in names]
        second_record = run(scan, version)
        assert [(run.out / name).read_bytes() for name in names] == first
        assert first_record.nqm == second_record.nqm

    def test_every_stage_is_timed(self, run: Run, scan_file: ScanFile) -> None:
        record = run(scan_file())
        assert tuple(record.stage_seconds) == STAGES
        assert record.seconds == pytest.approx(sum(record.stage_seconds.values()))

    def test_says_what_was_asked_for(self, run: Run, scan_file: ScanFile) -> None:
        record = run(scan_file(), members=12, min_dice=0.7, alpha=0.2, rule="nqm")
        assert (record.members, record.min_dice, record.alpha, record.rule) == (12, 0.7, 0.2, "nqm")

    def test_says_what_the_verdict_rests_on(self, run: Run, scan_file: ScanFile) -> None:
        record = run(scan_file())
        (structure,) = record.segments
        assert record.nqm is not None
        assert record.predicted_dice == pytest.approx(0.95 - 0.1 * record.nqm)
        assert record.required_dice == 0.8
        assert record.nqm_threshold == pytest.approx(1.5)
        assert record.dice_interval is not None
        assert (structure.label, structure.name) == (1, "thing 1")
        for name in ("nqm", "predicted_dice", "required_dice", "dice_interval", "nqm_threshold", "volume_ml"):
            assert getattr(structure, name) == getattr(record, name)

    def test_figures_of_the_input_are_those_that_a_reference_is_made_of(self, run: Run, scan_file: ScanFile) -> None:
        scan, version = scan_file(), run.version()
        prepared = prepare(read_nifti(scan, limits=Limits()), version.manifest.preprocessing)
        expected = input_signals(prepared.image, spacing=prepared.scan.spacing)
        assert run(scan, version, members=1).input_statistics == expected
        assert {"spacing_x", "intensity_50", "roughness_z"} <= set(expected)

    def test_the_record_is_plain_json(self, run: Run, scan_file: ScanFile) -> None:
        found = json.loads(json.dumps(run(scan_file()).to_json()))
        assert found["rule"] == "conformal"
        assert len(found["dice_interval"]) == 2
        assert found["segments"][0]["label"] == 1


class TestSeveralSegments:
    two = Architecture((Level(3, 3, (2, 2, 2)), Level(3, 3)), channels=6, hidden=8, outputs=2)

    def masks(self, run: Run, scan: Path) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """The written labels, and the probabilities of both segments and of their union on the scan's grid."""
        version = run.version(architecture=self.two, parameters=self.two.parameter_count())
        run(scan, version)
        labels = np.asarray(Nifti1Image.from_filename(run.out / "mask.nii.gz").dataobj)
        prepared = prepare(read_nifti(scan, limits=Limits()), version.manifest.preprocessing)
        predictions = predict(ENGINE, version.network, prepared.image, seed=0, members=10)
        return labels, tuple(prepared.scan.to_native(one.mean) for one in predictions)

    def test_there_is_a_record_for_each_and_for_their_union(self, run: Run, scan_file: ScanFile) -> None:
        record = run(scan_file(), run.version(architecture=self.two))
        assert [(one.label, one.name) for one in record.segments] == [(1, "thing 1"), (2, "thing 2"), (None, "union")]
        assert record.volume_ml == record.segments[-1].volume_ml
        assert record.volume_ml == pytest.approx(sum(one.volume_ml for one in record.segments[:-1]))

    @pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, -1.0, 2.5, 1.0])], ids=["RAS", "anisotropic LPS"])
    def test_the_labels_neither_overlap_nor_leave_a_gap_in_the_union(
        self, run: Run, scan_file: ScanFile, affine: np.ndarray
    ) -> None:
        labels, (first, second, union) = self.masks(run, scan_file(affine=affine))
        np.testing.assert_array_equal(labels > 0, union > 0.5)
        np.testing.assert_array_equal(labels == 1, (union > 0.5) & (first >= second))
        np.testing.assert_array_equal(labels == 2, (union > 0.5) & (first < second))
        assert set(np.unique(labels)) == {0, 1, 2}
        # a mask of each at 0.5 would have left a gap between them
        assert ((labels > 0) & (first <= 0.5) & (second <= 0.5)).any()

    def test_volumes_are_those_of_the_written_labels(self, run: Run, scan_file: ScanFile) -> None:
        record = run(scan_file(), run.version(architecture=self.two))
        labels = np.asarray(Nifti1Image.from_filename(run.out / "mask.nii.gz").dataobj)
        counted = [np.count_nonzero(labels == 1), np.count_nonzero(labels == 2), np.count_nonzero(labels)]
        assert [one.volume_ml for one in record.segments] == [pytest.approx(count / 1000) for count in counted]

    def test_is_accepted_only_where_every_structure_is(
        self, run: Run, scan_file: ScanFile, make_manifest: Callable[..., Manifest]
    ) -> None:
        accepted = run(scan_file(), run.version(architecture=self.two), min_dice=0.05)
        assert [one.verdict for one in accepted.segments] == ["accept"] * 3
        assert accepted.verdict == "accept"
        for structure in range(3):
            ranges = [(0.0, 1e6)] * 3
            ranges[structure] = (1e5, 1e6)
            contract = with_contract(make_manifest(architecture=self.two), volume_ml=tuple(ranges))
            record = run(scan_file(), run.version(architecture=self.two, contract=contract), min_dice=0.05)
            verdicts = ["accept"] * 3
            verdicts[structure] = "flag"
            assert [one.verdict for one in record.segments] == verdicts
            assert record.verdict == "flag"
            assert record.nqm == record.segments[structure].nqm  # the figures are those of the worst
            assert [reason.code for reason in record.reasons] == ["volume_implausible"]

    def test_a_reason_that_holds_for_all_is_told_once(
        self, run: Run, scan_file: ScanFile, make_manifest: Callable[..., Manifest]
    ) -> None:
        contract = with_contract(make_manifest(architecture=self.two), spacing_mm=((2.0, 3.0),) * 3)
        record = run(scan_file(), run.version(architecture=self.two, contract=contract), min_dice=0.05)
        assert [reason.code for reason in record.reasons] == ["spacing_out_of_range"]

    def test_a_scan_far_too_large_has_an_empty_record_for_each(
        self, run: Run, scan_file: ScanFile, make_manifest: Callable[..., Manifest]
    ) -> None:
        contract = with_contract(make_manifest(architecture=self.two), extent_mm=((5.0, 10.0),) * 3)
        record = run(scan_file(), run.version(architecture=self.two, contract=contract))
        assert [one.name for one in record.segments] == ["thing 1", "thing 2", "union"]
        assert {(one.verdict, one.nqm, one.volume_ml) for one in record.segments} == {("flag", None, 0.0)}


class TestVerdict:
    def codes(self, record: Record) -> set[str]:
        return {reason.code for reason in record.reasons}

    @pytest.mark.parametrize("rule", ["nqm", "conformal"])
    def test_a_mask_is_accepted_where_nothing_speaks_against_it(
        self, run: Run, scan_file: ScanFile, rule: Rule
    ) -> None:
        record = run(scan_file(), min_dice=0.05, rule=rule)
        assert (record.verdict, record.reasons) == ("accept", ())

    @pytest.mark.parametrize(("rule", "code"), [("nqm", "nqm_above_threshold"), ("conformal", "risk_not_certified")])
    def test_a_limit_that_nothing_reaches_flags(self, run: Run, scan_file: ScanFile, rule: Rule, code: str) -> None:
        record = run(scan_file(), min_dice=0.99, rule=rule)
        assert (record.verdict, self.codes(record)) == ("flag", {code})

    def test_a_predicted_dice_below_the_limit_flags(
        self, run: Run, scan_file: ScanFile, calibration_rows: Callable[[Manifest], list[CalibrationRow]]
    ) -> None:
        version = run.version()
        predicted = run(scan_file(), version).predicted_dice or 0.0
        rows = [replace(row, predicted=0.999, dice=0.999) for row in calibration_rows(version.manifest)]
        record = run(scan_file(), run.version(rows=rows), min_dice=predicted + 0.001)
        assert (record.verdict, self.codes(record)) == ("flag", {"predicted_dice_too_low"})
        assert record.required_dice == 0.999

    def test_a_smaller_risk_than_the_calibration_shows_flags(self, run: Run, scan_file: ScanFile) -> None:
        record = run(scan_file(), min_dice=0.05, alpha=0.001)
        assert (record.verdict, self.codes(record)) == ("flag", {"risk_not_certified"})

    def test_the_papers_rule_takes_every_ensemble_that_has_a_line(self, run: Run, scan_file: ScanFile) -> None:
        assert run(scan_file(), members=2, min_dice=0.05, rule="nqm").verdict == "accept"
        record = run(scan_file(), members=2, min_dice=0.05)
        assert (record.verdict, self.codes(record)) == ("flag", {"ensemble_too_small"})

    @pytest.mark.parametrize("rule", ["nqm", "conformal"])
    def test_a_single_member_is_never_accepted(self, run: Run, scan_file: ScanFile, rule: Rule) -> None:
        record = run(scan_file(), members=1, min_dice=0.05, rule=rule)
        assert (record.verdict, self.codes(record)) == ("flag", {"ensemble_too_small"})

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"spacing_mm": ((2.0, 3.0),) * 3}, "spacing_out_of_range"),
            ({"extent_mm": ((30.0, 300.0),) * 3}, "extent_out_of_range"),
            ({"volume_ml": ((1e5, 1e6),)}, "volume_implausible"),
            ({"border_max": (0.0,)}, "structure_cut_off"),
        ],
    )
    def test_a_breach_of_the_contract_flags(
        self,
        run: Run,
        scan_file: ScanFile,
        make_manifest: Callable[..., Manifest],
        changes: dict[str, Any],
        code: str,
    ) -> None:
        contract = with_contract(make_manifest(), **changes)
        record = run(scan_file(), run.version(contract=contract), min_dice=0.05)
        assert (record.verdict, self.codes(record)) == ("flag", {code})

    def test_a_scan_far_too_large_is_flagged_without_running_the_network(
        self, run: Run, scan_file: ScanFile, make_manifest: Callable[..., Manifest]
    ) -> None:
        contract = with_contract(make_manifest(), extent_mm=((5.0, 10.0),) * 3)
        seen: list[str] = []
        record = run(
            scan_file(),
            run.version(contract=contract),
            min_dice=0.05,
            on_stage=lambda stage, done: seen.append(f"{stage} {done:.1f}"),
        )
        assert record.verdict == "flag"
        assert {"extent_out_of_range", "not_segmented"} <= self.codes(record)
        assert (record.nqm, record.volume_ml) == (None, 0.0)
        assert [one for one in seen if one.startswith("segment")] == ["segment 0.0"]
        assert not np.asarray(Nifti1Image.from_filename(run.out / "mask.nii.gz").dataobj).any()

    def test_weights_that_overflow_are_flagged_not_accepted(self, run: Run, scan_file: ScanFile) -> None:
        version = run.version()
        weights = {
            name: array * (1e30 if "dense_out" in name else 1) for name, array in version.network.weights.items()
        }
        weights = {name: array.astype(np.float32) for name, array in weights.items()}
        network = type(version.network)(version.network.architecture, weights)
        record = run(scan_file(), LoadedVersion(version.manifest, network, version.calibrated), min_dice=0.05)
        assert record.verdict == "flag"


class TestSeveralVolumes:
    def test_the_versions_volume_of_a_4d_scan_is_segmented_as_if_it_came_alone(
        self, run: Run, scan_file: ScanFile, tmp_path: Path
    ) -> None:
        alone = scan_file()
        scan = Nifti1Image.from_filename(alone)
        voxels = np.asarray(scan.dataobj)
        both = tmp_path / "both.nii.gz"
        Nifti1Image(np.stack([voxels[::-1], voxels], axis=3), scan.affine).to_filename(both)
        version = run.version(preprocessing=Preprocessing(spacing_mm=(1.0, 1.0, 1.0), volumes=(1,)))
        first, second = run(alone, version), run(both, version)
        assert (first.nqm, first.volume_ml) == (second.nqm, second.volume_ml)
        assert first.nqm is not None
        with pytest.raises(SeveralVolumesError):
            run(both)


class TestCancel:
    def test_a_callback_that_raises_stops_the_run_and_leaves_nothing(self, run: Run, scan_file: ScanFile) -> None:
        def cancel(stage: str, done: float) -> None:
            if stage == "segment" and done > 0.3:
                raise CancelledError("stop")

        with pytest.raises(CancelledError):
            run(scan_file(), on_stage=cancel)
        assert list(run.out.iterdir()) == []


class TestLowPrecision:
    """An engine of low precision serves only versions whose manifest proves that nothing depends on it."""

    @pytest.fixture
    def engine(self, core: ModuleType) -> Engine:
        if not core.has_bf16():
            pytest.skip("this processor has no bfloat16 instructions")
        return get_engine("native-bf16")

    @pytest.mark.parametrize(
        ("found", "used"),
        [
            ({}, "native-bf16"),
            ({"dice_mean": 0.9989}, "native"),
            ({"verdicts_changed": 1}, "native"),
            ({"scans": 0}, "native"),
            ({"engine": "another"}, "native"),
            (None, "native"),
        ],
        ids=["proven", "masks differ", "a verdict changed", "no scans", "another engine", "never measured"],
    )
    def test_is_used_only_where_it_is_proven(
        self, run: Run, scan_file: ScanFile, engine: Engine, found: dict[str, Any] | None, used: str
    ) -> None:
        proof = {"engine": "native-bf16", "scans": 9, "dice_mean": 0.999, "dice_min": 0.99, "verdicts_changed": 0}
        low_precision = None if found is None else LowPrecision(**(proof | found))
        record = run(scan_file(), run.version(low_precision=low_precision), engine=engine)
        assert record.engine == used
