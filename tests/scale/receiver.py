"""An HTTP server that takes traces (OTLP) and webhooks, and keeps what it got."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACES = "/v1/traces"


@dataclass(frozen=True)
class Part:
    """A part of a trace, and the service that told of it."""

    service: str
    name: str
    trace: str
    attributes: dict[str, Any]


class Receiver:
    """Listens on a port of its own, in a thread."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.raw: list[bytes] = []
        self.hooks: list[bytes] = []
        self.refuse = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def of(self, job_id: str) -> list[Part]:
        """All parts of the trace in which this job is."""
        traces = {one.trace for one in self.parts if one.attributes.get("ncagate.job_id") == job_id}
        return [one for one in self.parts if one.trace in traces]

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, body: bytes) -> None:
        self.raw.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _attributes(resource.resource)["service.name"]
            for scope in resource.scope_spans:
                self.parts += [Part(service, one.name, one.trace_id.hex(), _attributes(one)) for one in scope.spans]

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: N805  # the inner self is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == TRACES:
                    if receiver.refuse:
                        self.connection.close()
                        return
                    receiver._take(body)
                else:
                    receiver.hooks.append(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler


def _attributes(owner: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in owner.attributes}
