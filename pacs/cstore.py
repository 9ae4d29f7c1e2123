"""C-STORE as a client (DICOM part 4, B): objects to an archive, as they lie on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config
from pynetdicom.association import Association

from pacs.config import CStoreDestination
from pacs.errors import DeliveryError, RefusedError
from pacs.statuses import out_of_resources, stored
from pacs.tls import client_context

REJECTED_TRANSIENT = 0x02  # DICOM part 8, 9.3.4

_config.STORE_SEND_CHUNKED_DATASET = True  # straight from the file, never decoded


def send_cstore(destination: CStoreDestination, files: Sequence[Path]) -> None:
    """Store objects in one association.

    Raises:
        RefusedError: the archive does not want one of them.
        DeliveryError: it does not answer, or cannot take them now.
    """
    entity = AE(ae_title=destination.calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = destination.timeout_s
    entity.connection_timeout = destination.timeout_s
    for file in files:
        meta = read_file_meta_info(file)
        entity.add_requested_context(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID)
    secured = (client_context(destination.tls), destination.host) if destination.tls is not None else None
    association = entity.associate(destination.host, destination.port, ae_title=destination.ae_title, tls_args=secured)
    if not association.is_established:
        raise _why(association)
    try:
        for file in files:
            _store(association, file)
    finally:
        association.release()


def _why(association: Association) -> DeliveryError:
    """There is no association: the archive does not answer, has no room now, or does not want us."""
    if association.is_rejected:
        answer = association.acceptor.primitive
        passes = getattr(answer, "result", None) == REJECTED_TRANSIENT
        return DeliveryError("no association now") if passes else RefusedError("association rejected")
    if association.rejected_contexts:
        return RefusedError("none of the objects is of a kind that is accepted")
    return DeliveryError("no association")


def _store(association: Association, file: Path) -> None:
    try:
        status = association.send_c_store(file)
    except ValueError as error:  # no presentation context for it
        raise RefusedError("this kind of object is not accepted") from error
    except RuntimeError as error:
        raise DeliveryError("the association broke") from error
    code = status.get("Status")
    if code is None or out_of_resources(code):
        raise DeliveryError("no answer" if code is None else f"status {code:04X}")
    if not stored(code):
        raise RefusedError(f"status {code:04X}")
