"""A real Orthanc with the shipped recipe, on free ports and with a storage folder of its own."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ncagate.orthanc import Orthanc, OrthancError, program, running_orthanc

Start = Callable[..., AbstractContextManager[Orthanc]]


@pytest.fixture
def orthanc(tmp_path: Path) -> Start:
    """Starts Orthanc; keyword arguments are environment variables of the recipe (docker/orthanc/orthanc.json).

    Without Orthanc and DCMTK the test is skipped, and fails where CI=true.
    """
    try:
        for name in ("Orthanc", "storescu", "storescp"):
            program(name)
    except OrthancError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))

    def start(**environment: str) -> AbstractContextManager[Orthanc]:
        return running_orthanc(tmp_path, **environment)

    return start
