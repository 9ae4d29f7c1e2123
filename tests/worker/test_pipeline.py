from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from PIL import Image

from imaging.limits import Limits
from model_store.loaded import LoadedVersion, load_version
from model_store.manifest import InputContract, LowPrecision, Manifest
from model_store.registry import Registry
from nca.architecture import Architecture, Level
from nca.engine import Engine, get_engine
from nca.errors import CancelledError
from worker.pipeline import STAGES, Options, Record, segment_scan

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
            options=Options(min_dice=min_dice, members=members, seed=0),
            limits=Limits(),
            out=self.out,
            workdir=work,
            **rest,
        )


@pytest.fixture
def run(tmp_path: Path, publish_tiny: Publish) -> Run:
    return Run(tmp_path, publish_tiny)


def with_contract(manifest: Manifest, **changes: Any) -> InputContract:
    return manifest.contract.model_copy(update=changes)


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

    def test_several_structures_have_a_label_and_a_verdict_each(self, run: Run, scan_file: ScanFile) -> None:
        two = Architecture((Level(3, 3, (2, 2, 2)), Level(3, 3)), channels=6, hidden=8, outputs=2)
        record = run(scan_file(), run.version(architecture=two))
        assert [segment.label for segment in record.segments] == [1, 2]
        labels = set(np.unique(np.asarray(Nifti1Image.from_filename(run.out / "mask.nii.gz").dataobj)))
        assert labels <= {0, 1, 2}
        flagged = any(segment.verdict == "flag" for segment in record.segments)
        assert record.verdict == ("flag" if flagged else "accept")


class TestVerdict:
    def codes(self, record: Record) -> set[str]:
        return {reason.code for reason in record.reasons}

    def test_a_mask_is_accepted_where_nothing_speaks_against_it(self, run: Run, scan_file: ScanFile) -> None:
        record = run(scan_file(), min_dice=0.05)
        assert (record.verdict, record.reasons) == ("accept", ())

    def test_a_limit_that_nothing_reaches_flags(self, run: Run, scan_file: ScanFile) -> None:
        record = run(scan_file(), min_dice=0.99)
        assert record.verdict == "flag"
        assert "nqm_above_threshold" in self.codes(record)

    def test_a_single_member_is_never_accepted(self, run: Run, scan_file: ScanFile) -> None:
        record = run(scan_file(), members=1, min_dice=0.05)
        assert (record.verdict, self.codes(record)) == ("flag", {"ensemble_too_small"})

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"spacing_mm": ((2.0, 3.0),) * 3}, "spacing_out_of_range"),
            ({"extent_mm": ((30.0, 300.0),) * 3}, "extent_out_of_range"),
            ({"volume_ml": ((1e5, 1e6),)}, "volume_implausible"),
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
        record = run(scan_file(), LoadedVersion(version.manifest, network), min_dice=0.05)
        assert record.verdict == "flag"


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
