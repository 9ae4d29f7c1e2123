"""Every snippet of docs/client.md, as it stands there, against a real service."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Stack

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "client.md"
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(scan: Path, make_slices: Callable[..., list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the guide sends."""
    shutil.copy(scan, tmp_path)
    make_slices(tmp_path / "series", 20)
    (tmp_path / "notes.txt").write_text("no scan")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class TestGuide:
    def test_has_snippets(self) -> None:
        assert len(SNIPPETS) == 5

    @pytest.mark.parametrize("code", SNIPPETS, ids=range(len(SNIPPETS)))
    def test_snippet_runs(self, stack: Stack, place: Path, code: str, capsys: pytest.CaptureFixture[str]) -> None:
        names: dict[str, Any] = {"url": stack.status()["url"], "key": None, "__name__": "guide"}
        exec(compile(code, str(GUIDE), "exec"), names)
        assert capsys.readouterr().out.strip()
