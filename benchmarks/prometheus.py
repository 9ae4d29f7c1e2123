"""A real Prometheus on a port of its own, with the shipped rules, for tests and pictures."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "docker" / "prometheus" / "rules"
DASHBOARDS = ROOT / "docker" / "grafana" / "dashboards"
EVERY_S = 1.0
"""How often it scrapes and evaluates; the shipped one does so every 15 s."""
START_S = 30.0
POLL_S = 0.1
_CONFIG = """
global: {{ scrape_interval: {every}ms, scrape_timeout: {every}ms, evaluation_interval: {every}ms }}
rule_files: [{rules}/*.yml]
scrape_configs:
  - job_name: ncagate
    static_configs:
      - targets: {targets}
"""


class PrometheusMissingError(Exception):
    """No `prometheus` on the path (on Debian: apt-get install prometheus)."""


class Prometheus:
    """A running one, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30.0)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector: labels and value of each series."""
        return self._result("query", query=expression)

    def values(self, expression: str) -> list[float]:
        """The values of the instant vector alone."""
        return [float(one["value"][1]) for one in self.query(expression)]

    def over(self, expression: str, *, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The range vector; times are seconds since the epoch."""
        return self._result("query_range", query=expression, start=start, end=end, step=step)

    def exemplars(self, expression: str, *, start: float, end: float) -> list[dict[str, str]]:
        """The labels of the exemplars of these series."""
        parameters = {"query": expression, "start": str(start), "end": str(end)}
        answer = self._client.get("/api/v1/query_exemplars", params=parameters).raise_for_status().json()
        return [one["labels"] for series in answer["data"] for one in series["exemplars"]]

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        alerts = self._client.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
        return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

    def _result(self, what: str, **parameters: Any) -> list[dict[str, Any]]:
        answer = self._client.post(f"/api/v1/{what}", data={name: str(one) for name, one in parameters.items()}).json()
        if answer["status"] != "success":
            raise ValueError(f"{parameters['query']}: {answer['error']}")
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


@contextmanager
def running_prometheus(folder: Path, targets: Sequence[str]) -> Iterator[Prometheus]:
    """Scrape ``targets`` (host:port) for as long as one is in it, with the shipped rules.

    What differs: scrapes and evaluations every second, and minutes of `for` are seconds. Expressions, their windows and
    thresholds are the shipped ones.

    Raises:
        PrometheusMissingError: it is not installed.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise PrometheusMissingError("no prometheus on PATH")
    rules = folder / "rules"
    rules.mkdir(parents=True)
    for path in RULES.glob("*.yml"):
        (rules / path.name).write_text(hastened(path.read_text()))
    config = folder / "prometheus.yml"
    every = int(EVERY_S * 1000)
    config.write_text(_CONFIG.format(every=every, rules=rules, targets=json.dumps(list(targets))))
    address = f"127.0.0.1:{_free_port()}"
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={address}", "--enable-feature=exemplar-storage"]
    with (folder / "prometheus.log").open("w") as log, subprocess.Popen(command, stderr=log) as process:  # noqa: S603
        prometheus = Prometheus(f"http://{address}")
        try:
            _wait(prometheus, process, wanted=len(targets), log=folder / "prometheus.log")
            yield prometheus
        finally:
            prometheus.close()
            process.terminate()


def hastened(rules: str) -> str:
    """Rules whose alerts wait for seconds where they waited for minutes."""
    units = {"m": 1, "h": 60}
    return re.sub(r"(?<=for: )(\d+)([mh])\b", lambda found: f"{int(found[1]) * units[found[2]]}s", rules)


def panels(dashboard: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard."""
    found: list[dict[str, Any]] = json.loads(dashboard.read_text(encoding="utf-8"))["panels"]
    return found


def concrete(expression: str, *, interval: str, window: str) -> str:
    """A panel's expression with Grafana's variables filled in."""
    return expression.replace("$__rate_interval", interval).replace("$window", window)


def _wait(prometheus: Prometheus, process: subprocess.Popen[bytes], *, wanted: int, log: Path) -> None:
    """Until every target has been scraped, and the seconds are forgotten in which none was."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            scraped = prometheus.values('sum(up{job="ncagate"})') == [wanted]
            if scraped and "NcagateGatewayDown" not in prometheus.firing():
                return
        except (httpx.TransportError, ValueError):  # not there yet, or it still reads its storage
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise TimeoutError(f"Prometheus is not ready: {log.read_text()[-2000:]}")
        time.sleep(POLL_S)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
