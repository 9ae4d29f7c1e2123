"""A route's region of interest becomes that of the jobs that it makes."""

from pathlib import Path

import pytest

from model_store.registry import Registry
from ncagate.settings import Settings
from pacs.config import load_pacs
from pacs.errors import InvalidPacsConfigError

ROUTE = '[[route]]\nname = "heads"\nmodel = "hippocampus"\nroi = "{}"\n'


class TestRegionOfARoute:
    def test_is_that_of_the_job(self, tmp_path: Path) -> None:
        path = tmp_path / "pacs.toml"
        path.write_text(ROUTE.format("centre:-45,-29,-53:-9,21,-13.0"))
        (route,) = load_pacs(path).route
        request = route.wish().request(Registry(tmp_path / "models"), Settings(data=tmp_path))
        assert request.roi == "centre:-45,-29,-53:-9,21,-13"

    def test_one_that_is_none_is_refused_when_the_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "pacs.toml"
        path.write_text(ROUTE.format("somewhere"))
        with pytest.raises(InvalidPacsConfigError, match="roi"):
            load_pacs(path)
