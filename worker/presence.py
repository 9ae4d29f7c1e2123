"""What others know of this worker: its row, which it makes, and touches as it works."""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from jobs.workers import WorkerRepository

ANNOUNCE_S = 1.0
"""How often a worker that begins tries to make its row: the database may be away, or its tables not there yet."""
SIGN_OFF_S = 2.0
"""How long a worker that ends waits for the database."""

log = logging.getLogger(__name__)


class Presence:
    """One worker's row, from any of its processes. No method raises: that nobody knows of a worker stops no job."""

    def __init__(self, workers: WorkerRepository, name: str, *, every_s: float) -> None:
        self._workers, self._name, self._every_s = workers, name, every_s
        self._shown = float("-inf")

    def announce(self) -> None:
        """Make the row, as soon as that can be done."""
        threading.Thread(target=self._announce, name="presence", daemon=True).start()

    def answer(self) -> None:
        """A canary came."""
        try:
            self._workers.seen(self._name)
        except SQLAlchemyError:
            log.warning("a canary was not answered, nor work on a job shown: the database does not answer")

    def show(self) -> None:
        """A job is under way; called at every beat, written down now and then."""
        if time.monotonic() - self._shown >= self._every_s:
            self._shown = time.monotonic()
            self.answer()

    def sign_off(self) -> None:
        """Remove the row."""
        thread = threading.Thread(target=self._sign_off, daemon=True)
        thread.start()
        thread.join(SIGN_OFF_S)

    def _announce(self) -> None:
        while True:
            try:
                self._workers.started(self._name)
            except SQLAlchemyError:
                time.sleep(ANNOUNCE_S)
            else:
                return

    def _sign_off(self) -> None:
        try:
            self._workers.signed_off(self._name)
        except SQLAlchemyError:
            log.warning("the database does not answer: this worker will look as if it were silent")
