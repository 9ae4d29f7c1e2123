from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


class TestModels:
    def test_are_listed_with_versions_and_aliases(self, service: Any) -> None:
        models = {one["name"]: one for one in service.client.get("/models").json()["models"]}
        assert [one["version"] for one in models["tiny"]["versions"]] == ["1.0.0", "1.1.0"]
        assert all(one["usable"] for one in models["tiny"]["versions"])
        assert models["tiny"]["aliases"] == {"production": "1.0.0"}

    def test_links_lead_on(self, service: Any) -> None:
        model = service.client.get("/models/tiny").json()
        manifest = service.client.get(model["versions"][0]["link"]).json()
        assert (manifest["name"], manifest["version"]) == ("tiny", "1.0.0")
        assert set(manifest["files"]) == {"calibration.csv", "model.safetensors"}

    def test_an_unknown_model_or_version_is_a_404(self, service: Any) -> None:
        for path, code in [
            ("/models/brain", "model_not_found"),
            ("/models/..%2f..%2fetc", "not_found"),
            ("/models/brain/versions/1.0.0", "model_not_found"),
            ("/models/tiny/versions/9.9.9", "version_not_found"),
        ]:
            answer = service.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, code)


class TestAliases:
    def test_the_first_version_has_nothing_to_roll_back_to(self, service: Any) -> None:
        answer = service.client.post("/models/tiny/aliases/production/rollback")
        assert (answer.status_code, answer.json()["code"]) == (422, "alias_invalid")

    def test_promote_and_roll_back(self, service: Any) -> None:
        alias = "/models/tiny/aliases/production"
        assert service.client.put(alias, json={"version": "1.1.0"}).json()["version"] == "1.1.0"
        assert service.client.get(f"/jobs/{service.submit()}").json()["version"] == "1.1.0"
        assert service.client.post(f"{alias}/rollback").json()["version"] == "1.0.0"
        assert service.client.get(f"/jobs/{service.submit()}").json()["version"] == "1.0.0"

    def test_an_unknown_version_changes_nothing(self, service: Any) -> None:
        answer = service.client.put("/models/tiny/aliases/production", json={"version": "9.9.9"})
        assert (answer.status_code, answer.json()["code"]) == (404, "version_not_found")
        assert service.client.get("/models/tiny").json()["aliases"] == {"production": "1.0.0"}

    def test_a_body_that_is_no_change_is_refused(self, service: Any) -> None:
        for body in [{}, {"version": 1}, {"version": "1.0.0", "force": True}]:
            answer = service.client.put("/models/tiny/aliases/production", json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")


class TestCorruptVersion:
    @pytest.mark.parametrize("file", ["manifest.json", "model.safetensors", "calibration.csv"])
    def test_is_a_503_and_harms_no_other(self, service: Any, store: Path, file: str) -> None:
        (store / "tiny" / "1.1.0" / file).write_text("{")
        answer = service.client.post("/segment", files={"scan": b"scan"}, data={"model": "tiny", "version": "1.1.0"})
        assert (answer.status_code, answer.json()["code"]) == (503, "version_corrupt")
        assert service.until_clean()
        usable = {one["version"]: one["usable"] for one in service.client.get("/models/tiny").json()["versions"]}
        assert usable == {"1.0.0": True, "1.1.0": False}
        assert service.submit()
        assert service.client.get("/readyz").status_code == 200

    def test_damaged_aliases_hide_no_version(self, service: Any, store: Path) -> None:
        (store / "tiny" / "aliases.json").write_text("{")
        (view,) = (one for one in service.client.get("/models").json()["models"] if one["name"] == "tiny")
        assert view["aliases"] is None
        assert [one["usable"] for one in view["versions"]] == [True, True]
