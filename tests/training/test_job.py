import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from imaging.nifti import write_nifti
from model_store.loaded import LoadedVersion, load_version
from model_store.manifest import Manifest
from model_store.registry import Registry
from nca.gate import Policy
from tests.balls import CONFIG
from training.artefacts import KINDS
from training.assess import Assessment, evaluate, recalibrate
from training.errors import CheckpointMismatchError, InvalidConfigError, NoTrainingDataError
from training.foreign import CROPS
from training.job import run
from training.outcomes import read_outcomes


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "ball.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("job")


@pytest.fixture(scope="module")
def manifest(config: Path, folder: Path, ball_folder: Path) -> Manifest:
    """One whole run of the job."""
    return run(data=ball_folder, config=config, store=folder / "store", run=folder / "run")


class TestRun:
    def test_learns_the_task_and_says_so(self, manifest: Manifest) -> None:
        for part in ("cross_validation", "validation"):
            assert manifest.metrics[part]["ball"]["clean"]["dice_mean"] > 0.85

    def test_publishes_a_whole_version(self, manifest: Manifest, folder: Path) -> None:
        loaded = load_version(Registry(folder / "store", shipped=None), "ball")
        assert loaded.manifest == manifest
        assert loaded.manifest.format == 2

    def test_the_weights_are_those_of_the_first_fold(self, manifest: Manifest, folder: Path) -> None:
        published = load_version(Registry(folder / "store", shipped=None), "ball").network.weights
        kept = load_file(folder / "run" / "fold-0" / "network.safetensors")
        assert published.keys() == kept.keys()
        for name, array in kept.items():
            np.testing.assert_array_equal(published[name], array)

    def test_the_manifest_says_where_the_weights_come_from(self, manifest: Manifest) -> None:
        record = manifest.training
        assert [len(fold) for fold in record.folds] == [6, 5, 5]
        assert len({scan for fold in record.folds for scan in fold}) == 16
        assert set(record.training_scans) == {scan for fold in record.folds[1:] for scan in fold}
        assert record.seed == record.config["seed"] == 3
        assert manifest.licence == "CC0-1.0"

    def test_no_validation_scan_was_seen_by_the_weights_or_by_their_calibration(self, manifest: Manifest) -> None:
        assert len(manifest.validation_scans) == 6
        assert not set(manifest.validation_scans) & {*manifest.training.training_scans, *manifest.calibration.scans}

    def test_is_calibrated_on_what_the_other_folds_held_out(self, manifest: Manifest, folder: Path) -> None:
        calibration = manifest.calibration
        assert set(calibration.scans) == {scan for fold in manifest.training.folds[1:] for scan in fold}
        assert set(calibration.kinds) == {"clean", *KINDS}
        (calibrated,) = load_version(Registry(folder / "store", shipped=None), "ball").calibrated
        assert len(calibrated.dice) == calibration.outcomes
        whole = [
            one.dice
            for number in (1, 2)
            for one in read_outcomes(folder / "run" / f"fold-{number}" / "outcomes-4.csv")
            if one.observed.members == 4
        ]
        np.testing.assert_allclose(calibrated.dice, whole, atol=5e-5)

    def test_its_reference_are_the_clean_scans_of_the_calibration(self, manifest: Manifest, folder: Path) -> None:
        reference = Registry(folder / "store", shipped=None).load_reference(manifest)
        assert reference is not None
        assert set(reference.scans) == set(manifest.calibration.scans)
        assert {"nqm", "predicted_dice", "volume_ml", "spacing_x", "intensity_50", "roughness_x"} <= {
            *reference.signals
        }

    def test_there_is_a_line_for_every_ensemble(self, manifest: Manifest) -> None:
        (structure,) = manifest.calibration.structures
        assert [line.members for line in structure.lines] == [2, 3, 4]
        assert all(line.slope < 0 for line in structure.lines)

    def test_every_kind_of_damage_is_evaluated(self, manifest: Manifest) -> None:
        for part, scans in (("cross_validation", 16), ("validation", 6)):
            table = manifest.metrics[part]["ball"]
            papers = {f"{kind} (paper)" for kind in ("noise", "spike", "ghosting")}
            assert set(table) == {"clean", *papers, "paper's artefacts", *KINDS, "all"}
            assert table["clean"]["outcomes"] == scans
            assert table["paper's artefacts"]["outcomes"] == 3 * scans
            for figures in table.values():
                assert figures["failures"] + figures["passes"] == figures["outcomes"]
                assert figures["detected"] + figures["false_negatives"] == figures["failures"]

    def test_leaves_metrics_outcomes_and_pictures(self, manifest: Manifest, folder: Path) -> None:
        for number in range(3):
            home = folder / "run" / f"fold-{number}"
            assert len((home / "metrics.csv").read_text().splitlines()) == 101
            with Image.open(home / "curves.png") as picture:
                assert picture.width > 500
            held_out = {one.scan for one in read_outcomes(home / "outcomes-4.csv")}
            assert held_out == set(manifest.training.folds[number])
        with Image.open(folder / "run" / "calibration.png") as picture:
            assert picture.width > 500

    def test_does_not_begin_anew_over_a_run_that_is_there(
        self, manifest: Manifest, config: Path, folder: Path, ball_folder: Path
    ) -> None:
        with pytest.raises(CheckpointMismatchError, match="--resume"):
            run(data=ball_folder, config=config, store=folder / "store", run=folder / "run")

    def test_a_finished_run_is_published_again_without_training(
        self, manifest: Manifest, config: Path, folder: Path, ball_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        again = run(data=ball_folder, config=config, store=folder / "again", run=folder / "run", resume=True)
        assert again.files == manifest.files
        assert (again.metrics, again.calibration) == (manifest.metrics, manifest.calibration)
        # ten scans cannot show a risk of 5 %, and whoever trains on so few is told
        assert "ball: these scans show for no threshold" in " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def version(manifest: Manifest, folder: Path) -> LoadedVersion:
    return load_version(Registry(folder / "store", shipped=None), "ball", manifest.version)


@pytest.fixture(scope="module")
def assessment(version: LoadedVersion, ball_folder: Path, folder: Path) -> Assessment:
    foreign = folder / "foreign"
    foreign.mkdir()
    write_nifti(foreign / "noise.nii.gz", np.random.default_rng(0).normal(size=(40, 41, 42)), np.eye(4))
    (foreign / "broken.nii.gz").write_bytes(b"no scan")
    policy = Policy(0.8, 0.05, "nqm")
    return evaluate(version, data=ball_folder, report=folder / "report", policy=policy, foreign=foreign)


class TestEvaluate:
    def test_looks_only_at_scans_that_the_version_has_not_seen(
        self, assessment: Assessment, version: LoadedVersion
    ) -> None:
        assert {one.outcome.scan for one in assessment.judged} == set(version.manifest.validation_scans)

    def test_agrees_with_the_job_on_its_validation_part(self, assessment: Assessment, manifest: Manifest) -> None:
        found = assessment.detection["the whole gate"]["ball"]["all"]
        told = manifest.metrics["validation"]["ball"]["all"]
        assert found["dice_mean"] == pytest.approx(told["dice_mean"], abs=1e-9)
        assert (found["outcomes"], found["failures"]) == (told["outcomes"], told["failures"])

    def test_writes_what_it_found(self, assessment: Assessment, folder: Path) -> None:
        report = folder / "report"
        figures = json.loads((report / "evaluation.json").read_text())
        assert figures["detection"] == assessment.detection
        assert len(read_outcomes(report / "outcomes.csv")) == len(assessment.judged)
        page = (report / "report.html").read_text()
        assert page.count("data:image/png;base64,") == 2
        assert "pairwise Dice" in page

    def test_accepts_nothing_that_is_no_such_scan(self, assessment: Assessment) -> None:
        assert [(row.scan, row.judged, row.accepted) for row in assessment.foreign] == [
            ("noise.nii.gz", 1, 0),
            ("noise.nii.gz, crops", CROPS, 0),
            ("noise, a constant, a ramp", 4, 0),
        ]
        assert all(row.reasons for row in assessment.foreign)

    def test_a_folder_of_known_scans_alone_is_refused(
        self, version: LoadedVersion, ball_folder: Path, tmp_path: Path
    ) -> None:
        for part in ("images", "labels"):
            (tmp_path / part).mkdir()
            for name in version.manifest.training.training_scans:
                (tmp_path / part / name).symlink_to(ball_folder / part / name)
        with pytest.raises(NoTrainingDataError, match="seen"):
            evaluate(version, data=tmp_path, report=tmp_path / "report", policy=Policy(0.8, 0.05))


@pytest.fixture(scope="module")
def recalibrated(version: LoadedVersion, ball_folder: Path, folder: Path) -> LoadedVersion:
    store = folder / "site"
    published = recalibrate(version, data=ball_folder, store=store, name="balls of this site")
    return load_version(Registry(store, shipped=None), "ball", published.version)


class TestRecalibrate:
    def test_the_weights_are_the_same(self, recalibrated: LoadedVersion, version: LoadedVersion) -> None:
        for name, array in version.network.weights.items():
            np.testing.assert_array_equal(recalibrated.network.weights[name], array)

    def test_the_gate_rests_on_the_scans_of_the_site(self, recalibrated: LoadedVersion, version: LoadedVersion) -> None:
        calibration = recalibrated.manifest.calibration
        assert calibration.data == "balls of this site"
        assert set(calibration.scans) == set(version.manifest.validation_scans)
        assert calibration.structures != version.manifest.calibration.structures

    def test_so_does_what_jobs_are_compared_with(self, recalibrated: LoadedVersion, folder: Path) -> None:
        reference = Registry(folder / "site", shipped=None).load_reference(recalibrated.manifest)
        assert reference is not None
        assert set(reference.scans) == set(recalibrated.manifest.calibration.scans)

    def test_says_how_the_gate_fares_on_them(self, recalibrated: LoadedVersion) -> None:
        figures = recalibrated.manifest.metrics["site"]["ball"]["clean"]
        assert figures["outcomes"] == len(recalibrated.manifest.calibration.scans)

    def test_low_precision_is_not_proven_for_the_new_verdict(self, recalibrated: LoadedVersion) -> None:
        assert recalibrated.manifest.low_precision is None


class TestRefusals:
    def test_fewer_scans_than_folds(self, ball_folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "many.toml"
        path.write_text(CONFIG.replace("folds = 3", "folds = 17"))
        with pytest.raises(NoTrainingDataError, match="16 scans are of too few patients for 17 folds"):
            run(data=ball_folder, config=path, store=tmp_path, run=tmp_path / "run")

    def test_a_folder_without_labelled_scans(self, config: Path, tmp_path: Path) -> None:
        with pytest.raises(NoTrainingDataError):
            run(data=tmp_path, config=config, store=tmp_path, run=tmp_path / "run")

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("seed = 3", "seed = "),
            ("seed = 3", "sed = 3"),
            ("folds = 3", "folds = 2"),
            ("crop = [16, 16, 16]", "crop = [15, 16, 16]"),
            ("kernel = 3, steps = 6", "kernel = 4, steps = 6"),
        ],
        ids=["not TOML", "unknown key", "too few folds", "crop that the scale does not divide", "even kernel"],
    )
    def test_a_configuration_that_makes_no_sense(self, ball_folder: Path, tmp_path: Path, old: str, new: str) -> None:
        path = tmp_path / "bad.toml"
        path.write_text(CONFIG.replace(old, new))
        with pytest.raises(InvalidConfigError, match=r"bad\.toml"):
            run(data=ball_folder, config=path, store=tmp_path, run=tmp_path / "run")
