"""One POST to an address that was chosen before: the host's name is for the certificate and the Host header alone.

By httpcore, which knows no redirects and no proxies of the environment, with connections of our own below: nothing
resolves a name a second time, and one deadline holds for everything, however slowly the other side speaks.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpcore

from ncagate.webhook_hosts import Address, WebhookUrl
from pacs.errors import DeliveryError

CONNECT_S = 5.0
"""Longest wait for one of several addresses."""
_FAILURES = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


def post(
    url: WebhookUrl,
    addresses: Sequence[Address],
    *,
    headers: Mapping[str, str],
    body: bytes,
    context: ssl.SSLContext,
    timeout_s: float,
) -> int:
    """The status of the answer; nothing else of it is read. ``addresses`` are tried in their order.

    Raises:
        DeliveryError: there was no answer within ``timeout_s``.
    """
    target = httpcore.URL(
        scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.path.encode("ascii")
    )
    sent = [(name.encode(), value.encode()) for name, value in {"Host": url.authority, **headers}.items()]
    network = _Pinned(addresses, time.monotonic() + timeout_s)
    try:
        with (
            httpcore.ConnectionPool(ssl_context=context, network_backend=network) as pool,
            pool.stream("POST", target, headers=sent, content=body) as answer,
        ):
            return answer.status
    except _FAILURES as error:
        raise DeliveryError(f"no answer: {type(error).__name__}") from error


class _Pinned(httpcore.NetworkBackend):
    """Connects to the addresses it was given, whatever host it is asked for."""

    def __init__(self, addresses: Sequence[Address], deadline: float) -> None:
        self._addresses, self._deadline = addresses, deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """The first connection that comes about."""
        failure: Exception = httpcore.ConnectError("no address")
        for address in self._addresses:
            try:
                wait_s = min(CONNECT_S, _left(self._deadline))
                return _Timed(httpcore.SyncBackend().connect_tcp(str(address), port, timeout=wait_s), self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Timed(httpcore.NetworkStream):
    """A stream each of whose waits ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """As of the stream."""
        return self._stream.read(max_bytes, timeout=_left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """As of the stream."""
        self._stream.write(buffer, timeout=_left(self._deadline))

    def close(self) -> None:
        """As of the stream."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """As of the stream."""
        secured = self._stream.start_tls(ssl_context, server_hostname, timeout=_left(self._deadline))
        return _Timed(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """As of the stream."""
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is up")
    return left
