"""`ncagate submit`, `status`, `watch`, `fetch` and `jobs` against a whole service."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ncagate.batch import COLUMNS, row_of
from ncagate.cli import app
from ncagate.terminal import Exit
from tests.e2e.conftest import Stack
from tests.service.conftest import RESULT

Cli = Callable[..., Any]
HEEDS_CTRL_C = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from ncagate.cli import main; main()"
)
"""The command, where whoever started the tests has told their processes to ignore SIGINT as well."""


@pytest.fixture
def cli(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Types a command at a place where NCAGATE_URL is the service."""
    monkeypatch.setenv("NCAGATE_URL", str(stack.status()["url"]))
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.nii"
    path.write_text("this is no scan")
    return path


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestSubmit:
    def test_without_waiting_the_job_is_told(self, cli: Cli, scan: Path) -> None:
        done = cli("submit", scan, "--model", "tiny")
        assert done.exit_code == Exit.DONE, done.output
        title, row = (line.split() for line in done.stdout.splitlines())
        assert title == ["scan", "job", "state"]
        assert (row[0], row[2]) == ("scan.nii.gz", "queued")
        assert cli("status", row[1]).exit_code == Exit.DONE

    def test_a_name_with_brackets_is_shown_as_it_is(self, cli: Cli, scan: Path, tmp_path: Path) -> None:
        shutil.copy(scan, tmp_path / "scan[1] [red].nii.gz")
        done = cli("submit", tmp_path / "scan[1] [red].nii.gz", "--model", "tiny")
        assert "scan[1] [red].nii.gz" in done.stdout

    def test_waiting_gives_verdicts_and_files(self, cli: Cli, scan: Path, broken: Path, tmp_path: Path) -> None:
        done = cli("submit", scan, broken, "--model", "tiny", "--members", 2, "-o", "out", "--json")
        assert done.exit_code == Exit.NEGATIVE
        first, second = json.loads(done.stdout)
        assert (first["state"], first["members"], second["error"]["code"]) == ("succeeded", 2, "unknown_format")
        assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [
            "scan_mask.nii.gz", "scan_preview.png", "scan_uncertainty.nii.gz"
        ]  # fmt: skip
        assert first["files"] == [f"out/scan_{end}" for end in ("mask.nii.gz", "uncertainty.nii.gz", "preview.png")]

    def test_strictness_tells_flagged_masks_by_the_exit_code(self, cli: Cli, scan: Path) -> None:
        flagged = ["submit", scan, "--model", "tiny", "--members", 2, "--wait", "--min-dice", 0.94]
        assert cli(*flagged).exit_code == Exit.DONE
        done = cli(*flagged, "--strict")
        assert done.exit_code == Exit.FLAGGED
        assert "flag" in done.stdout

    def test_what_is_refused_is_told_in_one_line(self, cli: Cli, scan: Path) -> None:
        for words, code in (
            (["--model", "brain"], "model_not_found"),
            (["--model", "tiny", "--members", 5000], "invalid_parameter"),
            (["--model", "tiny", "--roi", "ras:1,2"], "invalid_parameter"),
        ):
            done = cli("submit", scan, *words)
            assert done.exit_code == Exit.REFUSED
            (line,) = done.stderr.splitlines()
            assert line.startswith("ncagate: ")
            assert line.endswith(f"[{code}]")

    @pytest.mark.parametrize("words", [[], ["--folder", "."], ["a.nii", "--folder", ".", "--csv", "x"], ["--csv", "x"]])
    def test_either_scans_or_a_batch(self, cli: Cli, words: list[str]) -> None:
        assert cli("submit", *words).exit_code == Exit.REFUSED

    def test_a_scan_that_is_not_there_does_not_keep_the_others(self, cli: Cli, scan: Path) -> None:
        done = cli("submit", "absent.nii", scan, "--model", "tiny", "--json")
        assert done.exit_code == Exit.NEGATIVE
        assert [one.get("state") or one["error"]["code"] for one in json.loads(done.stdout)] == [
            "scan_unusable", "queued"
        ]  # fmt: skip

    def test_nobody_there_is_told_by_the_exit_code(self, cli: Cli, scan: Path) -> None:
        done = cli("submit", scan, "--url", "http://127.0.0.1:9", "--patience", 0)
        assert (done.exit_code, done.stderr.split()[-1]) == (Exit.UNAVAILABLE, "[no_answer]")

    def test_time_that_is_over_loses_no_job(self, cli: Cli, scan: Path) -> None:
        done = cli("submit", scan, "--model", "slow", "--members", 20, "--wait", "--timeout", 0.2, "--json")
        assert (done.exit_code, done.stderr.split()[-1]) == (Exit.UNAVAILABLE, "[timed_out]")
        (record,) = json.loads(done.stdout)
        assert cli("fetch", record["id"]).exit_code == Exit.UNAVAILABLE  # not yet


class TestFollowing:
    def test_a_job_is_watched_shown_fetched_and_listed(self, cli: Cli, scan: Path, tmp_path: Path) -> None:
        (record,) = json.loads(cli("submit", scan, "--model", "tiny", "--members", 2, "--json").stdout)
        job = record["id"]
        watched = cli("watch", job)
        assert watched.exit_code == Exit.DONE
        assert watched.stdout.splitlines()[-1].startswith("100% succeeded ")
        last = json.loads(cli("watch", job, "--json").stdout.splitlines()[-1])
        assert (last["state"], json.loads(cli("status", job, "--json").stdout)["verdict"]) == (
            "succeeded", last["verdict"]
        )  # fmt: skip
        assert last["verdict"] in cli("status", job).stdout
        fetched = cli("fetch", job, "-o", "out")
        assert fetched.stdout.split() == [
            f"out/{job}_{end}" for end in ("mask.nii.gz", "uncertainty.nii.gz", "preview.png")
        ]
        assert len(json.loads(cli("fetch", job, "--json").stdout)["files"]) == 3
        assert job in cli("jobs").stdout
        assert [one["id"] for one in json.loads(cli("jobs", "--limit", 1, "--json").stdout)] == [job]
        assert cli("jobs", "--state", "failed", "--json").stdout.startswith("[")

    def test_a_job_that_failed(self, cli: Cli, broken: Path) -> None:
        (record,) = json.loads(cli("submit", broken, "--model", "tiny", "--json").stdout)
        assert cli("watch", record["id"]).exit_code == Exit.NEGATIVE
        assert "failed: unknown_format" in cli("status", record["id"]).stdout
        done = cli("fetch", record["id"])
        assert (done.exit_code, done.stderr.split()[-1]) == (Exit.NEGATIVE, "[unknown_format]")

    @pytest.mark.parametrize("command", ["status", "watch", "fetch"])
    def test_no_such_job(self, cli: Cli, command: str) -> None:
        done = cli(command, "0" * 32)
        assert (done.exit_code, done.stderr.split()[-1]) == (Exit.REFUSED, "[job_not_found]")

    def test_a_place_that_cannot_be_written_to(self, cli: Cli, scan: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        done = cli("submit", scan, "--model", "tiny", "--members", 2, "-o", "file/below", "--json")
        assert (done.exit_code, done.stderr.split()[-1]) == (Exit.REFUSED, "[file_error]")
        assert json.loads(done.stdout)[0]["state"] == "succeeded"

    def test_a_key_is_needed_where_there_are_any(self, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NCAGATE_URL", f"http://127.0.0.1:{site.service.port}")
        done = CliRunner().invoke(app, ["jobs"])
        assert (done.exit_code, done.stderr.split()[-1]) == (Exit.REFUSED, "[unauthenticated]")
        assert CliRunner().invoke(app, ["jobs", "--key", site.texts["ward"]]).exit_code == Exit.DONE
        assert CliRunner().invoke(app, ["jobs"], env={"NCAGATE_KEY": site.texts["ward"]}).exit_code == Exit.DONE


class TestCompletion:
    def test_commands_and_options_are_completed(self) -> None:
        for typed, wanted in (("ncagate su", "submit"), ("ncagate submit --fo", "--folder")):
            words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_NCAGATE_COMPLETE": "complete_bash"}
            done = CliRunner().invoke(app, [], prog_name="ncagate", env=words)
            assert done.stdout.split() == [wanted]


class TestBatch:
    @pytest.fixture
    def folder(self, tmp_path: Path, scan: Path, make_slices: Callable[..., list[Path]], broken: Path) -> Path:
        folder = tmp_path / "scans"
        folder.mkdir()
        shutil.copy(scan, folder / "a.nii.gz")
        shutil.copy(broken, folder / "b.nii")
        make_slices(folder / "c", 12)
        (folder / "notes.txt").write_text("no scan")
        (folder / "empty").mkdir()
        return folder

    def test_every_scan_gets_a_row_and_none_a_second_one(self, cli: Cli, folder: Path, tmp_path: Path) -> None:
        words = "submit", "--folder", folder, "--csv", "out.csv", "--model", "tiny", "--members", 2, "-o", "out"
        done = cli(*words)
        assert done.exit_code == Exit.NEGATIVE, done.output
        found = {row["name"]: row for row in rows(tmp_path / "out.csv")}
        assert list(next(iter(found.values()))) == list(COLUMNS)
        assert {name: row["error"] for name, row in found.items()} == {
            "a.nii.gz": "", "b.nii": "unknown_format", "c": "", "empty": "scan_unusable"
        }  # fmt: skip
        assert found["a.nii.gz"]["verdict"] in ("accept", "flag")
        job = json.loads(cli("status", found["c"]["job"], "--json").stdout)
        assert (found["c"]["nqm"], found["c"]["volume_ml"]) == (str(job["nqm"]), str(job["volume_ml"]))
        assert {"a_mask.nii.gz", "c_mask.nii.gz"} <= {one.name for one in (tmp_path / "out").iterdir()}
        before = (tmp_path / "out.csv").read_bytes()
        again = cli(*words, "--json")
        assert (again.exit_code, json.loads(again.stdout)) == (Exit.DONE, [])
        assert (tmp_path / "out.csv").read_bytes() == before

    def test_a_row_has_all_figures(self) -> None:
        assert row_of("a", RESULT | {"id": "j"}) == {
            "name": "a", "job": "j", "verdict": "flag", "nqm": 0.3, "predicted_dice": 0.66, "dice_low": 0.41,
            "dice_high": 0.83, "volume_ml": 3.25, "reasons": "nqm_above_threshold", "error": None,
        }  # fmt: skip

    def test_a_row_that_was_cut_off_is_done_again_by_the_same_job(self, cli: Cli, folder: Path, tmp_path: Path) -> None:
        words = "submit", "--folder", folder, "--csv", "out.csv", "--model", "tiny", "--members", 2, "--parallel", 1
        cli(*words)
        table = tmp_path / "out.csv"
        whole = rows(table)
        at = table.read_bytes().rindex(b"\r\n", 0, -2) + 4  # in the middle of the last row but for two bytes
        os.truncate(table, at)
        cli(*words)
        assert rows(table) == whole

    def test_what_came_to_nothing_may_be_tried_again(self, cli: Cli, folder: Path, tmp_path: Path) -> None:
        words = "submit", "--folder", folder, "--csv", "out.csv", "--model", "tiny", "--members", 2
        cli(*words)
        jobs = {row["name"]: row["job"] for row in rows(tmp_path / "out.csv")}
        (tmp_path / "out.csv").unlink()
        cli(*words)
        again = {row["name"]: row["job"] for row in rows(tmp_path / "out.csv")}
        assert again["a.nii.gz"] == jobs["a.nii.gz"]
        assert again["b.nii"] != jobs["b.nii"]

    def test_a_table_of_somebody_else_is_left_alone(self, cli: Cli, folder: Path, tmp_path: Path) -> None:
        for text in ("name,age\nDoe,40", "x" * 500, "name,job"):
            (tmp_path / "out.csv").write_text(text)
            done = cli("submit", "--folder", folder, "--csv", "out.csv", "--model", "brain")
            if text != "name,job":  # the beginning of ours, cut off
                assert (done.exit_code, done.stderr.split()[-1]) == (Exit.REFUSED, "[table_invalid]")
                assert (tmp_path / "out.csv").read_text() == text

    def test_a_service_that_is_not_there_ends_it_and_the_table_is_whole(
        self, cli: Cli, folder: Path, tmp_path: Path
    ) -> None:
        words = "submit", "--folder", folder, "--csv", "out.csv", "--url", "http://127.0.0.1:9", "--patience", 0
        assert cli(*words).exit_code == Exit.UNAVAILABLE
        assert [row for row in rows(tmp_path / "out.csv") if row["error"] != "scan_unusable"] == []

    def test_after_ctrl_c_the_table_is_whole_and_the_rest_can_be_done(
        self, stack: Stack, cli: Cli, scan: Path, tmp_path: Path
    ) -> None:
        folder, table = tmp_path / "scans", tmp_path / "out.csv"
        folder.mkdir()
        for number in range(6):
            shutil.copy(scan, folder / f"{number}.nii.gz")
        words = ["submit", "--folder", str(folder), "--csv", str(table), "--model", "slow", "--members", "2"]
        process = subprocess.Popen([sys.executable, "-c", HEEDS_CTRL_C, *words], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not (table.exists() and rows(table)) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == Exit.INTERRUPTED
        assert "Traceback" not in said
        done = rows(table)
        assert 0 < len(done) < 6
        listed = json.loads(cli("jobs", "--json").stdout)
        assert cli(*words).exit_code == Exit.DONE
        assert sorted(row["name"] for row in rows(table)) == [f"{number}.nii.gz" for number in range(6)]
        assert rows(table)[: len(done)] == done
        sent = {row["job"] for row in rows(table)}
        assert len(sent) == 6
        assert {
            one["id"] for one in listed if one["state"] in ("queued", "running")
        } <= sent  # taken up, not sent again
