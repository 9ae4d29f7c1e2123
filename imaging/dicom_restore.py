"""Identity put back into a result, which was made over images without it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from imaging.dicom_about import writing
from imaging.dicom_strip import MARKS


def restore(path: Path, target: Path, *, values: Dataset, uids: Mapping[str, str]) -> None:
    """Write the object to ``target`` with the patient's and study's ``values``, and original identifiers.

    ``uids`` are these by their replacements; what it does not know, as the object's own, stays. The same object and
    values give the same bytes.

    Raises:
        UnwritableError: the object or the values cannot be read.
    """
    with writing(target, "object"):
        dataset = dcmread(path)
        dataset.walk(lambda _, element: _replace(element, uids))
        for element in values:
            dataset.add(element)
        for mark in MARKS:
            dataset.pop(mark, None)
        dataset.save_as(target, enforce_file_format=True)


def _replace(element: DataElement, uids: Mapping[str, str]) -> None:
    if element.VR != "UI" or not element.value:
        return
    if element.VM > 1:
        element.value = [uids.get(str(one), str(one)) for one in element.value]
    else:
        element.value = uids.get(str(element.value), str(element.value))
