from __future__ import annotations

import subprocess
import sys


class TestImports:
    def test_the_gateway_loads_no_decoder_no_network_and_nothing_that_it_seldom_needs(self) -> None:
        heavy = {"torch", "nibabel", "pydicom", "highdicom", "alembic", "httpx", "boto3", "botocore", "structlog"}
        code = f"import sys, service.app; print(sorted({heavy!r} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
