"""What the tests of the native engine share."""

import os
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def core() -> ModuleType:
    """The extension module; without it the test is skipped, and fails where CI=true."""
    try:
        from nca.engine.native import _core
    except ImportError as error:
        reason = f"the native engine is not built: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return _core
