"""What the docs say is what the code does."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import imaging.errors
from imaging.errors import ImagingError
from ncagate import client
from ncagate.settings import Settings
from service.errors import PROBLEMS
from tests.docs import cli_reference

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
THREATS = (ROOT / "docs" / "threat-model.md").read_text()
API = (ROOT / "docs" / "api.md").read_text()


def subclasses(kind: type[ImagingError]) -> Iterator[type[ImagingError]]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


class TestOperations:
    @pytest.mark.parametrize("name", Settings.model_fields)
    def test_every_setting_stands_in_the_table_with_its_default(self, name: str) -> None:
        field = Settings.model_fields[name]
        default = "" if field.default is None else f"`{field.default}`"
        assert f"| `NCAGATE_{name.upper()}` | {default} | {field.description} |" in OPERATIONS

    def test_no_setting_stands_there_that_is_none(self) -> None:
        named = {one.lower() for one in re.findall(r"^\| `NCAGATE_([A-Z_]+)`", OPERATIONS, re.MULTILINE)}
        assert named == set(Settings.model_fields)


class TestApi:
    @pytest.mark.parametrize("code", sorted(PROBLEMS))
    def test_every_problem_is_listed_with_its_status(self, code: str) -> None:
        assert f"| `{code}` | {PROBLEMS[code].status} |" in API

    @pytest.mark.parametrize("error", list(subclasses(ImagingError)), ids=lambda one: one.code)
    def test_every_reason_why_a_scan_cannot_be_read_is_listed(self, error: type[ImagingError]) -> None:
        assert error.__module__ == imaging.errors.__name__
        assert f"| `{error.code}` |" in API


class TestPromises:
    """Each has a test, and the test is there."""

    @pytest.mark.parametrize("page", ["SECURITY.md", "docs/threat-model.md", "docs/operations.md"])
    def test_every_test_that_is_named_exists(self, page: str) -> None:
        named = re.findall(r"`(tests/[a-z_/]+\.py)(?:::(\w+)::(\w+))?`", (ROOT / page).read_text())
        assert len(named) >= 8
        for file, kind, name in named:
            source = (ROOT / file).read_text()
            if name:
                (body,) = re.findall(rf"^class {kind}\b.*?(?=^class |\Z)", source, re.MULTILINE | re.DOTALL)
                assert f"def {name}(" in body, f"{file}::{kind}::{name}"

    def test_every_row_of_the_threats_names_one(self) -> None:
        rows = re.findall(
            r"^\| (?:spoofing|tampering|repudiation|disclosure|denial|elevation) \|.*$", THREATS, re.MULTILINE
        )
        assert len(rows) >= 30
        assert [row for row in rows if "`tests/" not in row] == []


class TestCommandLine:
    def test_every_command_and_option_stands_on_the_page_as_it_is(self) -> None:
        text = cli_reference.PAGE.read_text(encoding="utf-8")
        assert text == cli_reference.page(text), "make docs-cli"

    def test_every_option_is_explained(self) -> None:
        bare = re.findall(r"^\| `[^`]+` \| [^|]*\|  ?\|$", cli_reference.PAGE.read_text(), re.MULTILINE)
        assert bare == []

    def test_every_code_of_the_client_is_named(self) -> None:
        page = cli_reference.PAGE.read_text()
        codes = {one.code for one in vars(client).values() if isinstance(one, type) and hasattr(one, "code")}
        assert [code for code in codes - {"client_error"} if f"`{code}`" not in page] == []


class TestReadme:
    def test_every_reason_to_flag_is_named(self) -> None:
        sources = [ROOT / "nca" / "gate.py", ROOT / "model_store" / "contract.py", ROOT / "worker" / "pipeline.py"]
        text = "".join(path.read_text() for path in sources)
        codes = set(re.findall(r'Reason\(\s*"([a-z_]+)"', text)) | set(re.findall(r'_outside\(\s*"([a-z_]+)"', text))
        assert len(codes) >= 14
        assert [code for code in sorted(codes) if f"`{code}`" not in README] == []

    def test_every_picture_is_there(self) -> None:
        for name in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
            assert (ROOT / name).is_file(), name

    def test_nothing_was_left_to_be_filled_in(self) -> None:
        for text in (README, OPERATIONS, API):
            assert "@@" not in text
