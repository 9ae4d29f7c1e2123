from __future__ import annotations

import subprocess
import sys


class TestImports:
    def test_the_gateway_loads_no_decoder_and_no_network(self) -> None:
        code = "import sys, service.app; print(sorted({'torch', 'nibabel', 'pydicom', 'highdicom'} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
