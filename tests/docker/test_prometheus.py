"""Rules, runbook and dashboards: valid, tried by `promtool`, and at one with each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
GRAFANA = ROOT / "docker" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def promtool(*arguments: str) -> str:
    """What it prints; without it the test is skipped, and fails where CI=true."""
    program = shutil.which("promtool")
    if program is None:
        reason = "no promtool on PATH (apt-get install prometheus)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    result = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


class TestRules:
    def test_the_configuration_is_valid_with_its_rules(self) -> None:
        config = PROMETHEUS / "prometheus.yml"
        promtool("check", "config", "--syntax-only", str(config))  # the key's file is the container's
        (pattern,) = yaml.safe_load(config.read_text())["rule_files"]
        rules = sorted(PROMETHEUS.glob(pattern))
        assert [path.name for path in rules] == ["alerts.yml", "recording.yml"]
        promtool("check", "rules", *map(str, rules))

    @pytest.mark.parametrize("tests", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda path: path.stem)
    def test_alerts_fire_when_they_should_and_only_then(self, tests: Path) -> None:
        assert "SUCCESS" in promtool("test", "rules", str(tests))

    def test_each_alert_is_seen_to_fire(self) -> None:
        scenarios = "".join(path.read_text() for path in (PROMETHEUS / "tests").glob("*.yml"))
        assert {*re.findall(r'alertname="(\w+)"', scenarios)} == {one["alert"] for one in ALERTS}


class TestRunbook:
    TEXT = (ROOT / "docs" / "runbook.md").read_text()

    def test_each_alert_has_a_section_and_each_section_an_alert(self) -> None:
        assert re.findall(r"^## (\w+)$", self.TEXT, re.MULTILINE) == [one["alert"] for one in ALERTS]

    @pytest.mark.parametrize("alert", ALERTS, ids=lambda one: one["alert"])
    def test_the_alert_leads_there_and_the_section_says_how_urgent_it_is(self, alert: dict[str, Any]) -> None:
        name = alert["alert"]
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"
        assert re.search(rf"^## {name}\n\n`{alert['labels']['severity']}`\. ", self.TEXT, re.MULTILINE)

    def test_its_metrics_settings_and_codes_exist(self) -> None:
        known = "".join((ROOT / "docs" / page).read_text() for page in ("operations.md", "api.md"))
        named = {*re.findall(r"\b(?:ncagate_[a-z_]+|NCAGATE_[A-Z_]+[A-Z])\b", self.TEXT)}
        assert [one for one in named if one not in known] == []


class TestGrafana:
    @pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
    def test_a_dashboard_is_read_only_and_asks_the_source_that_is_provisioned(self, path: Path) -> None:
        dashboard = json.loads(path.read_text())
        (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
        asked = {target["datasource"]["uid"] for panel in dashboard["panels"] for target in panel["targets"]}
        assert (dashboard["editable"], dashboard["uid"]) == (False, f"ncagate-{path.stem}")
        assert asked == {source["uid"]}

    @pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
    def test_no_panel_covers_another(self, path: Path) -> None:
        cells = [
            (x, y)
            for panel in json.loads(path.read_text())["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(cells) == len({*cells})
        assert max(x for x, _ in cells) < 24

    def test_the_container_finds_what_is_here(self) -> None:
        service = COMPOSE["services"]["grafana"]
        mounts = dict(one.split(":")[:2][::-1] for one in service["volumes"] if one.startswith("./"))
        (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/ncagate.yml").read_text())["providers"]
        assert ROOT / mounts[provider["options"]["path"]] == GRAFANA / "dashboards"
        assert ROOT / mounts["/etc/grafana/provisioning"] == GRAFANA / "provisioning"
        assert service["read_only"] is True
        assert not provider["allowUiUpdates"]

    def test_its_password_is_a_secret_that_is_made(self) -> None:
        service = COMPOSE["services"]["grafana"]
        assert service["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"
        assert "grafana_password" in (ROOT / "docker" / "make-secrets.sh").read_text()

    def test_every_picture_in_the_docs_is_of_a_dashboard(self) -> None:
        named = re.findall(r"images/dashboard_(\w+)\.png", (ROOT / "docs" / "operations.md").read_text())
        assert sorted(named) == [path.stem for path in DASHBOARDS]
        assert all((ROOT / "docs" / "images" / f"dashboard_{one}.png").is_file() for one in named)
