"""What commands print, as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from model_store.manifest import Manifest
from ncagate.cli import app

RUNS = "runs until it is stopped"
WRITES = "writes files, some of them JSON; what it prints is progress"
WITHOUT: dict[str, str] = {
    "serve": RUNS, "gateway": RUNS, "worker": RUNS, "listen": RUNS, "deliver": RUNS, "trainer": RUNS,
    "train": WRITES, "evaluate": WRITES, "calibrate": WRITES, "export-reviews": WRITES,
    "plan": "prints the TOML that it writes",
    "audit": "prints JSON anyway",
    "models show": "prints JSON anyway",
}  # fmt: skip
"""Why the others have no `--json`."""


def commands(group: Any, *names: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        else:
            yield " ".join((*names, name)), command


class TestEveryCommand:
    def test_has_the_option_or_a_reason(self) -> None:
        root = get_command(app)
        having = {name for name, one in commands(root) if any("--json" in option.opts for option in one.params)}
        assert having | set(WITHOUT) == {name for name, _ in commands(root)}
        assert not having & set(WITHOUT)


@pytest.fixture
def cli(tmp_path: Path, publish_tiny: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What a command prints, with a store in which `tiny` has two versions."""
    for version in ("1.0.0", "2.0.0"):
        publish_tiny(tmp_path / "models", version=version)
    monkeypatch.setenv("NCAGATE_STORE", str(tmp_path / "models"))
    monkeypatch.setenv("NCAGATE_DATA", str(tmp_path / "data"))

    def run(*words: str) -> Any:
        done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


class TestJson:
    @pytest.mark.parametrize(
        ("words", "wanted"),
        [
            (["models", "list"], [{"model": "tiny", "version": "1.0.0", "error": None}, {"version": "2.0.0"}]),
            (["models", "promote", "tiny", "2.0.0"], {"alias": "production", "version": "2.0.0"}),
            (["engines", "--engine", "torch"], [{"engine": "torch", "chosen": True}]),
            (["keys", "create", "ward"], {"client": "ward", "scopes": ["read", "submit"]}),
            (["keys", "list"], []),
            (["clients", "keep", "ward", "3"], {"client": "ward", "days": 3.0}),
            (["clients", "list"], []),
            (["purge", "--days", "1"], {"jobs": 0, "erased": True}),
            (["purge", "--days", "1", "--dry-run"], {"jobs": 0, "erased": False}),
        ],
        ids=lambda one: " ".join(one[:2]) if isinstance(one, list) and one and isinstance(one[0], str) else "",
    )
    def test_what_is_printed_comes_as_json_too(self, cli: Callable[..., Any], words: list[str], wanted: Any) -> None:
        found = cli(*words)
        if isinstance(wanted, dict):
            assert wanted.items() <= found.items()
        else:
            for one in wanted:
                assert any(one.items() <= row.items() for row in found), found

    def test_a_key_comes_with_its_secret_and_is_listed_and_revoked_without(self, cli: Callable[..., Any]) -> None:
        made = cli("keys", "create", "ward")
        assert made.pop("secret").startswith("ncg_")
        assert cli("keys", "list") == [made]
        ended = cli("keys", "revoke", made["key"])
        assert ended["revoked"] is not None
