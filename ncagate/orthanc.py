"""A real Orthanc with the recipe of docker/orthanc as a child process, for `make pacs-demo` and the tests."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

RECIPE = Path(__file__).resolve().parents[1] / "docker" / "orthanc"
LOOPBACK = "127.0.0.1"
AE_TITLE = "ORTHANC"
USER = "ncagate"
START_S = 30.0
STOP_S = 15.0
SEND_S = 120.0
POLL_S = 0.1


class OrthancError(Exception):
    """Orthanc, or a program that sends to it, is missing or does not do its work."""


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc; its HTTP client is that of the user ``ncagate``."""

    client: httpx.Client
    password: str
    dicom_port: int
    log: Path

    @property
    def dicomweb(self) -> str:
        """Root of its DICOMweb services."""
        return f"{str(self.client.base_url).rstrip('/')}/dicom-web"

    def store(self, files: Sequence[Path]) -> None:
        """Send DICOM files to it as a scanner does, by C-STORE (DCMTK's storescu).

        Raises:
            OrthancError: storescu is missing, or something was not stored.
        """
        address = [LOOPBACK, str(self.dicom_port)]
        command = [program("storescu"), "--required", "--aetitle", "SCANNER", "--call", AE_TITLE, *address]
        done = subprocess.run(  # noqa: S603
            [*command, *map(str, files)], check=False, capture_output=True, text=True, timeout=SEND_S
        )
        if done.returncode:
            raise OrthancError(f"storescu could not send {len(files)} files: {done.stderr.strip()}")

    def series(self, study: str | None = None) -> list[dict[str, Any]]:
        """Its series, or those of one study (StudyInstanceUID), as its REST API tells them."""
        query = {} if study is None else {"StudyInstanceUID": study}
        answer = self.client.post("/tools/find", json={"Level": "Series", "Query": query, "Expand": True})
        found: list[dict[str, Any]] = answer.raise_for_status().json()
        return found

    def files(self, series: dict[str, Any]) -> list[bytes]:
        """The DICOM files of one of its series."""
        answers = (self.client.get(f"/instances/{one}/file") for one in series["Instances"])
        return [answer.raise_for_status().content for answer in answers]


@contextmanager
def running_orthanc(folder: Path, **environment: str) -> Iterator[Orthanc]:
    """Start Orthanc on free ports with its storage in ``folder``; ``environment`` is what the recipe reads.

    Raises:
        OrthancError: it is missing or does not start.
    """
    http, dicom = free_ports(2)
    password = secrets.token_urlsafe(16)
    chosen = {
        "ORTHANC_STORAGE": str(folder / "orthanc"),
        "ORTHANC_HTTP_PORT": str(http),
        "ORTHANC_DICOM_PORT": str(dicom),
        "ORTHANC_PASSWORD": password,
        "ORTHANC_STABLE_AGE": "1",
        "NCAGATE_LUA": str(RECIPE / "ncagate.lua"),
    }
    log = folder / "orthanc.log"
    with (
        log.open("w") as output,
        httpx.Client(base_url=f"http://{LOOPBACK}:{http}", auth=(USER, password), timeout=SEND_S) as client,
    ):
        process = subprocess.Popen(  # noqa: S603
            [program("Orthanc"), str(RECIPE / "orthanc.json")],
            env=os.environ | chosen | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            _wait_until_ready(process, client, log)
            yield Orthanc(client, password, dicom, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def program(name: str) -> str:
    """Where a program is.

    Raises:
        OrthancError: it is missing; the message says what to install.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise OrthancError(f"{name} is missing; on Debian: apt-get install orthanc orthanc-dicomweb dcmtk")
    return found


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_until_ready(process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.get("/system").raise_for_status()
        except httpx.TransportError:
            time.sleep(POLL_S)
        else:
            return
    errors = [line for line in log.read_text().splitlines() if line.startswith("E")]
    raise OrthancError(f"Orthanc did not start: {errors[0] if errors else 'it says nothing'}")
