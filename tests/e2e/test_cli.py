"""The command line, as a person types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from model_store.manifest import Manifest

FIELDS = {
    "scan", "verdict", "reasons", "rule", "nqm", "predicted_dice", "dice_interval", "required_dice", "pairwise_dice",
    "volume_ml", "segments", "model", "version", "seed", "roi", "engine", "seconds", "warnings",
}  # fmt: skip
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def cli(tmp_path: Path, publish_tiny: Callable[..., Manifest]) -> Cli:
    """Runs `ncagate` with a store of its own in which `tiny` has two versions."""
    for version in ("1.0.0", "2.0.0"):
        publish_tiny(tmp_path / "models", version=version)

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ncagate.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env=os.environ | {"NCAGATE_STORE": str(tmp_path / "models"), "NCAGATE_THREADS": "1"} | environment,
        )

    return run


class TestSegment:
    def test_every_scan_gets_its_files_and_its_record(self, cli: Cli, scan: Path, tmp_path: Path) -> None:
        done = cli("segment", scan, "--model", "tiny", "--version", "1.0.0", "--out", "out", "--json", "all.json")
        assert done.returncode == 0, done.stderr
        assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [
            "scan_mask.nii.gz", "scan_preview.png", "scan_uncertainty.nii.gz"
        ]  # fmt: skip
        (record,) = json.loads((tmp_path / "all.json").read_text())
        assert record.keys() == FIELDS
        assert (record["scan"], record["model"], record["version"]) == (str(scan), "tiny", "1.0.0")
        mask = Nifti1Image.from_filename(tmp_path / "out" / "scan_mask.nii.gz")
        source = Nifti1Image.from_filename(scan)
        assert mask.shape == source.shape
        np.testing.assert_allclose(mask.affine, source.affine, atol=1e-6)
        assert "Traceback" not in done.stderr

    def test_one_that_cannot_be_read_is_told_in_one_line_and_the_others_are_done(
        self, cli: Cli, scan: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "notes.nii.gz").write_text("this is no scan")
        scans = (tmp_path / "notes.nii.gz", tmp_path / "absent.nii", scan)
        done = cli("segment", *scans, "--model", "tiny", "--out", "out", "--json", "all.json")
        assert done.returncode == 1
        assert [line.rsplit(" ", 1)[1] for line in done.stderr.splitlines()] == ["[unknown_format]", "[file_not_found]"]
        records = json.loads((tmp_path / "all.json").read_text())
        assert [record.get("error", {}).get("code") for record in records] == ["unknown_format", "file_not_found", None]
        assert (tmp_path / "out" / "scan_mask.nii.gz").exists()

    def test_scans_of_the_same_name_do_not_overwrite_each_other(self, cli: Cli, scan: Path, tmp_path: Path) -> None:
        twin = tmp_path / "twin" / scan.name
        twin.parent.mkdir()
        twin.write_bytes(scan.read_bytes())
        done = cli("segment", scan, twin, "--model", "tiny", "--out", "out")
        assert done.returncode == 0
        first, second = (tmp_path / "out" / f"{name}_mask.nii.gz" for name in ("scan", "scan_2"))
        assert first.read_bytes() == second.read_bytes()

    def test_the_seed_decides(self, cli: Cli, scan: Path, tmp_path: Path) -> None:
        for folder, seed in (("a", 3), ("b", 4)):
            assert cli("segment", scan, "--model", "tiny", "--out", folder, "--seed", str(seed)).returncode == 0
        a, b = ((tmp_path / folder / "scan_uncertainty.nii.gz").read_bytes() for folder in "ab")
        assert a != b

    def test_the_verdicts_options_decide(self, cli: Cli, scan: Path, tmp_path: Path) -> None:
        found = []
        for options in (["--rule", "nqm"], ["--alpha", "0.2"], ["--alpha", "0.001"]):
            given = ["--out", "out", "--json", "all.json", "--min-dice", "0.05", *options]
            cli("segment", scan, "--model", "tiny", *given)
            (record,) = json.loads((tmp_path / "all.json").read_text())
            found.append((record["rule"], record["verdict"]))
        assert found == [("nqm", "accept"), ("conformal", "accept"), ("conformal", "flag")]

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (["--model", "brain"], "model_not_found"),
            (["--model", "../etc"], "model_not_found"),
            (["--model", "tiny", "--version", "9"], "version_not_found"),
            (["--model", "tiny", "--engine", "abacus"], "engine_unavailable"),
            (["--model", "tiny", "--min-dice", "1.5"], "invalid_setting"),
            (["--model", "tiny", "--alpha", "0"], "invalid_setting"),
            (["--model", "tiny", "--rule", "coin"], "invalid_setting"),
            (["--model", "tiny", "--roi", "ras:1,2,3"], "roi_invalid"),
        ],
    )
    def test_what_cannot_be_done_is_told_in_one_line(
        self, cli: Cli, scan: Path, arguments: list[str], code: str
    ) -> None:
        done = cli("segment", scan, "--out", "out", *arguments)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("ncagate: ")
        assert line.endswith(f"[{code}]")

    def test_strictness_tells_flagged_masks_by_the_exit_code_and_json_goes_to_stdout(
        self, cli: Cli, scan: Path
    ) -> None:
        words = "segment", scan, "--model", "tiny", "--out", "out", "--members", "2", "--json", "-"
        flagged = cli(*words, "--min-dice", "0.94", "--strict")
        assert (flagged.returncode, json.loads(flagged.stdout)[0]["verdict"]) == (3, "flag")


class TestModels:
    def test_promote_show_and_roll_back(self, cli: Cli) -> None:
        for version in ("1.0.0", "2.0.0"):
            assert cli("models", "promote", "tiny", version).returncode == 0
        assert json.loads(cli("models", "show", "tiny").stdout)["version"] == "2.0.0"
        assert cli("models", "rollback", "tiny").stdout == "tiny: production is now 1.0.0\n"
        assert json.loads(cli("models", "show", "tiny").stdout)["version"] == "1.0.0"
        nothing_left = cli("models", "rollback", "tiny")
        assert (nothing_left.returncode, nothing_left.stderr.count("\n")) == (2, 1)

    @pytest.mark.parametrize("file", ["model.safetensors", "calibration.csv"])
    def test_the_list_says_which_version_is_unusable(self, cli: Cli, tmp_path: Path, file: str) -> None:
        damaged = tmp_path / "models" / "tiny" / "1.0.0" / file
        damaged.write_bytes(damaged.read_bytes()[:-1])
        listed = cli("models", "list", COLUMNS="200").stdout.splitlines()
        assert "unusable" in next(line for line in listed if "tiny" in line and "1.0.0" in line)
        assert "unusable" not in next(line for line in listed if "tiny" in line and "2.0.0" in line)


class TestStart:
    def test_help_imports_nothing_heavy(self) -> None:
        heavy = "torch", "numpy", "celery", "sqlalchemy", "fastapi", "nibabel"
        code = f"import sys, ncagate.cli; print([one for one in {heavy!r} if one in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"

    def test_segmenting_imports_neither_torch_nor_what_a_server_needs(self) -> None:
        heavy = "torch", "scipy.ndimage", "celery", "sqlalchemy", "fastapi", "matplotlib", "highdicom"
        code = (
            "import sys, ncagate.cli, ncagate.segmenting, nca.pyramid; "
            f"print([one for one in {heavy!r} if one in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"

    def test_version(self, cli: Cli) -> None:
        assert cli("--version").stdout.startswith("ncagate 0.")

    def test_a_setting_that_is_none_is_told_in_one_line(self, cli: Cli) -> None:
        done = cli("serve", NCAGATE_PORT="many")
        assert done.returncode == 2
        assert done.stderr.startswith("ncagate: the setting port")
        assert done.stderr.count("\n") == 1

    def test_a_port_that_is_taken_is_told_in_one_line(self, cli: Cli, tmp_path: Path) -> None:
        import socket

        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = cli("serve", "--port", str(taken.getsockname()[1]), "--data", tmp_path / "data")
        assert done.returncode == 2
        assert done.stderr.rstrip().endswith("[address_unavailable]")
