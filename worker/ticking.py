"""A thread that looks after something while a ``with`` block runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Ticking(ABC):
    """Ticks every ``seconds`` until the block ends, or a tick says that it was the last one."""

    def __init__(self, name: str, *, seconds: float) -> None:
        self._seconds, self._ended = seconds, threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def tick(self) -> bool:
        """In the thread; whether to go on."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds) and self.tick():
            pass
