"""`ncagate listen`: archives and scanners send series here by C-STORE (DICOM part 4, B), and ask with C-ECHO."""

from __future__ import annotations

import logging
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer
from sqlalchemy.exc import SQLAlchemyError

from imaging.dicom_pixels import SYNTAXES
from ncagate.bucket import StorageUnavailableError
from pacs.collect import Collection
from pacs.config import ListenSection
from pacs.errors import ListenError
from pacs.files import Stored
from pacs.statuses import CANNOT_UNDERSTAND, DUPLICATE, OTHER_OBJECT, OUT_OF_RESOURCES, SUCCESS
from pacs.tls import server_context

TIDY_S = 60.0
PDU_BYTES = 65536
PDU_BYTES_MAX = 1 << 20
"""Longest unit of any kind that is read into memory; one that asks for an association may be longer than PDU_BYTES."""
STOP_S = 2.0
"""How long associations that are ended get for what they are at."""

_config.STORE_RECV_CHUNKED_DATASET = True  # straight to a file, never decoded

log = logging.getLogger(__name__)


@dataclass
class _Visit:
    """One association: how much it has stored of which series, and the bytes since its last object."""

    connection: socket.socket | None = None
    series: Counter[str] = field(default_factory=Counter)
    bytes: int = 0


@dataclass(frozen=True)
class Listener:
    """Takes associations and hands what they store to the collection."""

    section: ListenSection
    collection: Collection
    _visits: dict[Association, _Visit] = field(default_factory=dict)

    @contextmanager
    def listening(self) -> Iterator[int]:
        """Take associations meanwhile; the port.

        Raises:
            ListenError: the address cannot be bound to.
            InvalidPacsConfigError: a certificate or key cannot be read.
        """
        section = self.section
        context = server_context(section.tls) if section.tls is not None else None
        with self.collection.blobs.staging() as scratch, _temporary_files_in(scratch):
            entity = self._entity()
            try:
                server = entity.start_server(
                    (section.host, section.port), block=False, ssl_context=context, evt_handlers=self._handlers()
                )
            except OSError as error:
                raise ListenError(f"cannot listen on {section.host} port {section.port}: {error.strerror}") from error
            assert isinstance(server, ThreadedAssociationServer)  # noqa: S101  # of a server that does not block
            try:
                yield int(server.server_address[1])
            finally:
                server.shutdown()
                _end(entity)

    def listen_until(self, stop: threading.Event) -> None:
        """Take associations until ``stop`` is set; raises as `listening`."""
        with self.listening() as port:
            log.info("%s takes associations on port %d", self.section.ae_title, port)
            while not stop.wait(TIDY_S):
                self.tidy()

    def _entity(self) -> AE:
        section = self.section
        entity = AE(ae_title=section.ae_title)
        entity.require_called_aet = not section.any_called
        entity.require_calling_aet = list(section.calling)
        entity.maximum_associations = section.associations
        entity.maximum_pdu_size = PDU_BYTES
        entity.network_timeout = entity.dimse_timeout = section.idle_s
        entity.add_supported_context(Verification)
        for kind in (context.abstract_syntax for context in AllStoragePresentationContexts):
            if kind is not None:
                entity.add_supported_context(kind, list(SYNTAXES))
        return entity

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_CONN_OPEN, self._opened),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
            (evt.EVT_DATA_RECV, self._count),
            (evt.EVT_RELEASED, self._released),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]

    def _opened(self, event: evt.Event) -> None:
        """Let no peer hold a thread for ever by stopping amid a unit, or take memory by announcing a long one."""
        channel: Any = event.assoc.dul.socket
        self._visit(event.assoc).connection = channel.socket
        channel.socket.settimeout(self.section.idle_s)
        channel.recv = partial(_receive, channel.recv, channel.socket)

    def _closed(self, event: evt.Event) -> None:
        """Forget the association, the file of an object that it has not finished, and the place that it took."""
        visit = self._visits.pop(event.assoc, None)
        if visit is not None and visit.connection is not None:
            visit.connection.close()  # pynetdicom does not where the peer was faster
        if not event.assoc.is_established:  # else its thread waits half a minute for a request, and counts as open
            requests: Any = event.assoc.dul.to_user_queue
            requests.put(None)
        unfinished = getattr(event.assoc.dimse.message, "_data_set_file", None)
        if unfinished is not None:
            unfinished.close()
            Path(unfinished.name).unlink(missing_ok=True)

    def _visit(self, association: Association) -> _Visit:
        return self._visits.setdefault(association, _Visit())

    def _count(self, event: evt.Event) -> None:
        """End an association whose object is larger than any that is accepted: it would fill the disk."""
        visit = self._visit(event.assoc)
        visit.bytes += len(event.data)
        if visit.bytes > self.section.instance_bytes:
            log.warning("an object of more than %d bytes: the association is ended", self.section.instance_bytes)
            event.assoc.abort()

    def _store(self, event: evt.Event) -> int:
        visit = self._visit(event.assoc)
        visit.bytes = 0
        try:
            return self._keep(event, visit)
        except (OSError, SQLAlchemyError, StorageUnavailableError) as error:
            log.error("an object could not be kept: %s", type(error).__name__)
            return OUT_OF_RESOURCES

    def _keep(self, event: evt.Event, visit: _Visit) -> int:
        named = str(getattr(event.request, "AffectedSOPInstanceUID", ""))
        (receipt,) = self.collection.receive([Path(event.dataset_path)], sender=_sender(event.assoc), instance=named)
        if receipt.identity is None:
            return CANNOT_UNDERSTAND
        if receipt.series is None:
            return OTHER_OBJECT
        visit.series[receipt.series] += 1
        return DUPLICATE if receipt.stored is Stored.OTHER else SUCCESS

    def _released(self, event: evt.Event) -> None:
        """The sender has said all it had to say, so its series need not be quiet any longer.

        Unless it says so after every object, or has other associations for the same series.
        """
        visit = self._visit(event.assoc)
        series, visit.series = visit.series, Counter()
        open_yet = {one for other in [*self._visits.values()] for one in [*other.series]}
        complete = [one for one, count in series.items() if count > 1 and one not in open_yet]
        try:
            self.collection.series.released(sorted(complete))
        except SQLAlchemyError:
            log.exception("the series are looked at once they were quiet")

    def tidy(self) -> None:
        """Remove what associations left that broke amid an object."""
        for file in Path(tempfile.gettempdir()).iterdir():
            with suppress(FileNotFoundError):  # it was that of an association under way
                if time.time() - file.stat().st_mtime > self.section.idle_s + TIDY_S:
                    file.unlink()


def _receive(receive: Callable[[int], bytearray], connection: socket.socket, size: int) -> bytearray:
    """So many bytes; none, and the connection is ended, where that is more than any unit needs."""
    if size <= PDU_BYTES_MAX:
        return receive(size)
    log.warning("a unit of %d bytes was announced: the association is ended", size)
    _hang_up(connection)
    return bytearray()


def _end(entity: AE) -> None:
    """End the associations that are open; their peers send again what was not answered."""
    deadline, associations = time.monotonic() + STOP_S, entity.active_associations
    for one in associations:
        channel = one.dul.socket
        if channel is not None and channel.socket is not None:
            _hang_up(channel.socket)
    for one in associations:
        one.join(max(deadline - time.monotonic(), 0.0))


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _sender(association: Association) -> str:
    return str(association.requestor.ae_title).strip()


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Have pynetdicom's files lie beside those that they become links of."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
