"""Which route a series takes, and `ncagate routes test`, which says so beforehand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, SegmentationStorage

from imaging.dicom_identity import Identity
from pacs.config import Route
from pacs.routing import find_route, try_routes

Cli = Callable[..., subprocess.CompletedProcess[str]]
TABLE = """
[[route]]
name = "knees"
body_part = "KNEE[a-z]*"
model = "tiny"

[[route]]
name = "heads"
series_description = ".*(MPRAGE|T1).*"
sender = "dicomweb|PACS"
model = "tiny"
destinations = ["archive"]

[[route]]
name = "rest"
modality = "CT|MR"
model = "missing"
sender = "OTHER"

[[destination]]
name = "archive"
kind = "stow"
url = "http://127.0.0.1:1/dicom-web"
"""


def identity(**changes: str) -> Identity:
    fields = {
        "sop_class": CTImageStorage, "instance": "1.1", "study": "1.2", "series": "1.3", "modality": "CT",
        "body_part": "HEAD", "series_description": "Axial T1",
    }  # fmt: skip
    return Identity(**{**fields, **changes})


def route(name: str, **patterns: str) -> Route:
    return Route.model_validate({"name": name, "model": "tiny", **patterns})


def taken(routes: list[Route], *, sender: str = "PACS", **changes: str) -> str | None:
    found = find_route(routes, identity(**changes), sender=sender)
    return None if found is None else found.name


class TestFindRoute:
    def test_the_first_that_fits_decides(self) -> None:
        assert taken([route("mr", modality="MR"), route("ct", modality="CT"), route("all")]) == "ct"

    def test_without_one_that_fits_there_is_none(self) -> None:
        assert taken([route("mr", modality="MR")]) is None
        assert taken([]) is None

    @pytest.mark.parametrize("name", ["modality", "body_part", "series_description", "sender"])
    def test_every_pattern_has_to_match(self, name: str) -> None:
        fits = {"modality": "C.", "body_part": "HEAD", "series_description": ".*T1", "sender": "PACS"}
        assert taken([route("a", **fits)]) == "a"
        assert taken([route("a", **{**fits, name: "else"})]) is None

    def test_a_pattern_matches_the_whole_value_in_any_case(self) -> None:
        assert taken([route("a", series_description="axial")]) is None
        assert taken([route("a", series_description="axial.*")]) == "a"

    def test_an_absent_value_is_empty(self) -> None:
        assert taken([route("a", body_part=".+")], body_part="") is None
        assert taken([route("a", body_part="")], body_part="") == "a"

    @pytest.mark.parametrize(
        ("modality", "kind"),
        [
            ("SEG", SegmentationStorage),
            ("SR", ComprehensiveSRStorage),
            ("PR", CTImageStorage),
            ("CT", SegmentationStorage),
        ],
    )
    def test_what_is_no_image_takes_none(self, modality: str, kind: str) -> None:
        assert taken([route("all")], modality=modality, sop_class=kind) is None

    def test_an_image_of_an_unknown_kind_takes_one(self) -> None:
        assert taken([route("all")], sop_class="1.2.3.4") == "all"


class TestTryRoutes:
    def test_says_of_each_route_which_patterns_do_not_match(self) -> None:
        routes = [route("a", modality="MR", sender="ELSE"), route("b")]
        assert [one.misses for one in try_routes(routes, identity(), sender="PACS")] == [("modality", "sender"), ()]


@pytest.fixture
def cli(tmp_path: Path, publish_tiny: Callable[..., Any]) -> Cli:
    """Runs `ncagate routes test` with the table above."""
    publish_tiny(tmp_path / "models")
    (tmp_path / "pacs.toml").write_text(TABLE)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        chosen = {"NCAGATE_STORE": str(tmp_path / "models"), "NCAGATE_PACS": str(tmp_path / "pacs.toml")}
        command = [sys.executable, "-m", "ncagate.cli", "routes", "test", *map(str, arguments)]
        environment = os.environ | chosen | {"COLUMNS": "160"}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment)

    return run


class TestCommand:
    def test_says_which_route_is_taken_and_why_the_others_are_not(
        self, cli: Cli, make_slices: Callable[..., list[Path]], tmp_path: Path
    ) -> None:
        make_slices(tmp_path / "in")
        done = cli(tmp_path / "in")
        assert (done.returncode, done.stderr) == (0, "")
        facts, _, knees, heads, rest, end = done.stdout.splitlines()
        assert facts == "modality 'MR', body_part 'HEAD', series_description 'T1 MPRAGE', sender 'dicomweb'"
        assert knees.split() == ["knees", "tiny", "no", "body_part", "'KNEE[a-z]*'"]
        assert heads.split() == ["heads", "tiny", "taken"]
        assert rest.split() == ["rest", "missing", "no", "sender", "'OTHER'"]
        assert end == "tiny 1.0.0, accepted from Dice 0.8; goes to archive"

    def test_says_it_as_json_too(self, cli: Cli, make_slices: Callable[..., list[Path]], tmp_path: Path) -> None:
        make_slices(tmp_path / "in")
        found = json.loads(cli(tmp_path / "in", "--json").stdout)
        assert found["taken"] == "heads"
        assert [one["misses"] for one in found["routes"]] == [
            {"body_part": "KNEE[a-z]*"}, {}, {"sender": "OTHER"}
        ]  # fmt: skip
        assert (found["request"]["version"], found["request"]["destinations"]) == ("1.0.0", ["archive"])

    def test_one_file_of_it_will_do(self, cli: Cli, make_slices: Callable[..., list[Path]], tmp_path: Path) -> None:
        (file,) = make_slices(tmp_path / "in", 1)
        assert "taken" in cli(file).stdout

    def test_where_none_fits_it_ends_with_1(
        self, cli: Cli, make_slices: Callable[..., list[Path]], tmp_path: Path
    ) -> None:
        make_slices(tmp_path / "in", SeriesDescription="")
        done = cli(tmp_path / "in")
        assert done.returncode == 1
        assert done.stdout.endswith("no route: the series would not be segmented\n")

    def test_what_is_no_image_is_told(self, cli: Cli, make_slices: Callable[..., list[Path]], tmp_path: Path) -> None:
        make_slices(tmp_path / "in", 1, Modality="SEG", SOPClassUID=SegmentationStorage)
        done = cli(tmp_path / "in")
        assert done.returncode == 1
        assert "heads  tiny     no image" in done.stdout

    def test_a_route_to_a_missing_model_is_told(
        self, cli: Cli, make_slices: Callable[..., list[Path]], tmp_path: Path
    ) -> None:
        make_slices(tmp_path / "in", SeriesDescription="")
        done = cli(tmp_path / "in", "--sender", "OTHER")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.endswith("[model_not_found]\n")

    @pytest.mark.parametrize("series", ["nothing here", "pacs.toml"])
    def test_without_a_dicom_object_it_ends_with_2(self, cli: Cli, series: str) -> None:
        done = cli(series)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.endswith("[no_dicom_images]\n")

    def test_a_table_that_cannot_be_is_told(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "pacs.toml").write_text("quiet_s = 0")
        done = cli(tmp_path)
        assert done.returncode == 2
        assert done.stderr.endswith("[invalid_pacs_config]\n")
