"""A job's end reaches its webhook from `ncagate serve`, without anything else being started."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks.webhooks import Webhook


class TestServe:
    def test_tells_of_jobs_that_succeed_and_fail(
        self, served: Callable[..., AbstractContextManager[Any]], scan: Path, tmp_path: Path
    ) -> None:
        secret = f"whsec_{base64.b64encode(os.urandom(32)).decode()}"
        (tmp_path / "secret").write_text(secret)
        (tmp_path / "text").write_text("no scan")
        told: dict[str, dict[str, Any]] = {}
        both = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                Webhook(secret).verify(body, dict(self.headers))
                event = json.loads(body)
                told[event["data"]["link"]] = event
                self.send_response(204)
                self.end_headers()
                if len(told) == 2:
                    both.set()

        with HTTPServer(("127.0.0.1", 0), Handler) as receiver:
            thread = threading.Thread(target=receiver.serve_forever)
            thread.start()
            port = receiver.server_address[1]
            settings = {
                "NCAGATE_WEBHOOK_HOSTS": f"127.0.0.1:{port}",
                "NCAGATE_WEBHOOK_SECRET_FILE": str(tmp_path / "secret"),
            }
            try:
                with served(**settings) as stack:
                    url = f"http://127.0.0.1:{port}/hook"
                    good, bad = stack.submit(scan, webhook=url), stack.submit(tmp_path / "text", webhook=url)
                    assert both.wait(60.0)
                    delivered = stack.until(good, lambda job: job["deliveries"][0]["state"] == "delivered")
            finally:
                receiver.shutdown()
                thread.join()
        assert (told[good]["type"], told[bad]["type"]) == ("job.succeeded", "job.failed")
        assert told[good]["data"]["verdict"] == delivered["verdict"]
        assert told[bad]["data"]["error"] == "unknown_format"
