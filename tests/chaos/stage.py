"""The stacks that tests share: one on each database, kept from test to test while it is sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from tests.chaos.disk import small_disk
from tests.chaos.rig import Layout, Rig
from tests.chaos.servers import missing

Start = Callable[..., AbstractContextManager[Rig]]


class Stage:
    """Two gateways and two workers on either database, the data folder on a small disk where one can be mounted."""

    def __init__(self, start: Start, make_folder: Callable[[str], Path]) -> None:
        self._start, self._make_folder = start, make_folder
        self._small = True
        self._stacks: dict[bool, tuple[Rig, ExitStack]] = {}

    @contextmanager
    def rig(self, *, postgresql: bool = False, full: bool = False) -> Iterator[Rig]:
        """A stack that is whole and idle; ``full``: its disk is to be filled, so it must be a small one.

        What is left broken is mended. A stack on which something went wrong is replaced by a new one.
        """
        if postgresql not in self._stacks:
            self._stacks[postgresql] = self._begin(postgresql)
        rig, exits = self._stacks[postgresql]
        if full and not self._small:
            missing("no small disk: a tmpfs can be mounted by root, or with unshare (util-linux) in a user namespace")
        try:
            yield rig
        finally:
            if rig.sound:
                rig.heal()
            else:
                del self._stacks[postgresql]
                exits.close()

    def close(self) -> None:
        """Stop them."""
        for _, exits in self._stacks.values():
            exits.close()

    def _begin(self, postgresql: bool) -> tuple[Rig, ExitStack]:
        with ExitStack() as exits:
            data = exits.enter_context(small_disk(self._make_folder("disk")))
            self._small = data is not None
            layout = Layout(gateways=2, workers=2, postgresql=postgresql)
            return exits.enter_context(self._start(layout, data=data)), exits.pop_all()
