"""Without its environment nothing of OpenTelemetry is imported, and everything works."""

import subprocess
import sys

import pytest

LOOK = """
import sys
from ncagate import tracing
tracing.configure("gateway")
with tracing.span("one", parent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", job_id="x") as one:
    one.tell("another", failed=True)
    assert tracing.current() is None and tracing.identifiers() == {}
tracing.past("queue", 0.0, 1.0, parent=None)
tracing.flush()
from jobs import repository
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "boto"))])
"""


class TestOff:
    @pytest.mark.parametrize(
        "environment", [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}]
    )
    def test_nothing_is_imported(self, environment: dict[str, str]) -> None:
        done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
