"""TLS towards archives, and of archives towards us."""

from __future__ import annotations

import ssl
from typing import Any

from pacs.config import Tls
from pacs.errors import InvalidPacsConfigError


def client_context(tls: Tls | None) -> ssl.SSLContext:
    """Check the other side by its authority and name, and show our certificate where we have one.

    Raises:
        InvalidPacsConfigError: a certificate or key cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=tls.authority if tls else None)
        if tls is not None and tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidPacsConfigError(f"a certificate or key cannot be read: {error}") from error
    return context


def server_context(tls: Tls) -> ssl.SSLContext:
    """Show our certificate; with an authority, clients need one of it.

    Raises:
        InvalidPacsConfigError: there is no certificate, or it or its key cannot be read.
    """
    if tls.certificate is None:
        raise InvalidPacsConfigError("the listener's TLS needs a certificate")
    try:
        context = _LateHandshake(ssl.PROTOCOL_TLS_SERVER)
        if tls.authority is not None:
            context.load_verify_locations(tls.authority)
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidPacsConfigError(f"a certificate or key cannot be read: {error}") from error
    context.verify_mode = ssl.CERT_REQUIRED if tls.authority is not None else ssl.CERT_NONE
    return context


class _LateHandshake(ssl.SSLContext):
    """Leaves the handshake to the first read, which is the association's own thread's.

    pynetdicom would do it in the thread that accepts connections, where one silent client keeps all others waiting.
    """

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """As `ssl.SSLContext.wrap_socket`, without a handshake yet."""
        return super().wrap_socket(*arguments, **{**options, "do_handshake_on_connect": False})
