"""Webhooks: word of a job's end, signed as Standard Webhooks have it (https://www.standardwebhooks.com), to its URL.

What is sent names the job and its verdict, and nothing of the patient: no file, no series, no sentence of an error.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

from jobs.archive import WEBHOOK
from jobs.models import Job
from ncagate.settings import Settings
from ncagate.webhook_hosts import Address, WebhookHosts, WebhookUrl
from pacs.errors import DeliveryError, GoneError, RefusedError, WebhookSecretError
from pacs.pinned import post
from pacs.statuses import passes

SECRET_PREFIX = "whsec_"  # noqa: S105  # of every secret
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
"""As Standard Webhooks ask for."""
TIMEOUT_S = 15.0
"""Of one attempt, from the connection to the head of the answer."""
FIGURES = ("verdict", "nqm", "predicted_dice", "required_dice")
"""What of a result record is sent as it is."""


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host; OSError where it has none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


@dataclass(frozen=True)
class WebhookCarrier:
    """Tells the URL of a job that the job has ended. ``resolve`` gives the addresses of a host and port."""

    hosts: WebhookHosts
    secret_file: Path
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    resolve: Callable[[str, int], Sequence[Address]] = resolve
    clock: Callable[[], float] = time.time
    name: str = WEBHOOK
    timeout_s: float = TIMEOUT_S

    def carry(self, job: Job) -> None:
        """POST the event; a redirect is a refusal, 410 ends it.

        Raises:
            GoneError, RefusedError, DeliveryError: as of `Carrier`.
        """
        url = WebhookUrl.parse(job.request.webhook or "")
        if not self.hosts.permit(url):
            raise RefusedError("this deployment does not send to this host any more")
        addresses = self._addresses(url)
        body = event(job)
        headers = {"Content-Type": "application/json", "User-Agent": "ncagate", **self._signed(job, body)}
        _check(post(url, addresses, headers=headers, body=body, context=self.context, timeout_s=self.timeout_s))

    def _addresses(self, url: WebhookUrl) -> list[Address]:
        try:
            found = self.resolve(url.host, url.port)
        except (OSError, UnicodeError) as error:
            raise DeliveryError("the host's name cannot be resolved") from error
        permitted = [one for one in dict.fromkeys(found) if self.hosts.permit_address(url, one)]
        if not permitted:
            raise RefusedError("the host's name leads to no address that this deployment sends to")
        return permitted

    def _signed(self, job: Job, body: bytes) -> dict[str, str]:
        identifier, now = f"msg_{job.id}", int(self.clock())
        content = f"{identifier}.{now}.".encode() + body
        signatures = [hmac.digest(secret, content, "sha256") for secret in read_secrets(self.secret_file)]
        return {
            "webhook-id": identifier,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(f"v1,{base64.b64encode(one).decode()}" for one in signatures),
        }


def event(job: Job) -> bytes:
    """What is sent: JSON, the same at every attempt."""
    result = job.result or {}
    data = {
        "id": job.id,
        "state": job.state.value,
        "link": f"/jobs/{job.id}",
        "model": job.request.model,
        "version": job.request.version,
        **{name: result.get(name) for name in FIGURES},
        "reasons": [one["code"] for one in result.get("reasons") or ()],
        "error": job.error_code,
    }
    ended = datetime.fromtimestamp(job.finished_at or 0.0, UTC).isoformat(timespec="milliseconds")
    told = {"type": f"job.{job.state.value}", "timestamp": ended.replace("+00:00", "Z"), "data": data}
    return json.dumps(told, separators=(",", ":"), allow_nan=False).encode()


def read_secrets(path: Path) -> list[bytes]:
    """The secrets of a file, one a line; each signs, so that receivers can be given a new one before the old one goes.

    Raises:
        WebhookSecretError: it cannot be read, or holds none, or something that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise WebhookSecretError(f"the secret of webhooks cannot be read: {type(error).__name__}") from error
    if not lines:
        raise WebhookSecretError("the file of the webhooks' secrets is empty")
    return [_secret(line) for line in lines]


def open_webhooks(settings: Settings) -> WebhookCarrier | None:
    """The deployment's; None where it has none.

    Raises:
        WebhookSecretError: as of `read_secrets`.
    """
    if settings.webhook_hosts is None or settings.webhook_secret_file is None:
        return None
    read_secrets(settings.webhook_secret_file)
    return WebhookCarrier(WebhookHosts.parse(settings.webhook_hosts), settings.webhook_secret_file)


def _secret(line: str) -> bytes:
    try:
        secret = base64.b64decode(line.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not line.startswith(SECRET_PREFIX) or not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        wanted = f"{SECRET_PREFIX} and {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64"
        raise WebhookSecretError(f"a secret of webhooks is no {wanted}")
    return secret


def _check(status: int) -> None:
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return
    if status == HTTPStatus.GONE:
        raise GoneError(f"HTTP {status}")
    if passes(status):
        raise DeliveryError(f"HTTP {status}")
    raise RefusedError(f"HTTP {status}")
