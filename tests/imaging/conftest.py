from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real scans beside the checkout; without it skip, and fail where CI=true."""
    if SHARED_DATA.is_dir():
        return SHARED_DATA
    reason = "the real scans (../shared/data beside the checkout) are missing"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
