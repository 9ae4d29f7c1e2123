"""What a process says: one line an event, as text for people or as JSON for machines, with the identifiers in force.

Rooms log with the standard library; what they bind here stands in every line until the ``with`` block ends, in the
threads that work for it too.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Literal
from uuid import uuid4

from ncagate import tracing

LogFormat = Literal["text", "json"]
TEXT = "%(asctime)s %(levelname)s {}: %(message)s"
FIELDS = ("state", "code")
"""What a line says beside its words, where a job has changed its state."""
_REQUEST_ID = re.compile(r"[0-9A-Fa-f]{8}(?:-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}")
"""A UUID, with dashes or without: nothing longer, and nothing that could name anybody."""

NOTHING: Mapping[str, Any] = MappingProxyType({})
_bound: ContextVar[Mapping[str, Any]] = ContextVar("ncagate_log_fields", default=NOTHING)


def configure(process: str, form: LogFormat, *, rooms: tuple[str, ...] = (), level: int = logging.WARNING) -> None:
    """Log to standard error: what is at least ``level``, and all that these rooms tell."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(TEXT.format(process)) if form == "text" else _json(process))
    logging.basicConfig(handlers=[handler], level=level)
    for room in rooms:
        logging.getLogger(room).setLevel(logging.INFO)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Inside, every line has these fields; None is none."""
    token = _bound.set({**_bound.get(), **{name: value for name, value in fields.items() if value is not None}})
    try:
        yield
    finally:
        _bound.reset(token)


def fields() -> Mapping[str, Any]:
    """What is bound now."""
    return _bound.get()


def chosen_request_id(offered: str | None) -> str:
    """The identifier of a request: the one it came with, if that is a UUID, else a new one."""
    return offered if offered is not None and _REQUEST_ID.fullmatch(offered) else uuid4().hex


def _json(process: str) -> logging.Formatter:
    import structlog  # late: it takes a third of a second, which text need not spend

    def ours(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**event, **_bound.get(), **tracing.identifiers(), "process": process}

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=FIELDS),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            ours,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,  # as text, without the values of variables
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
    )
