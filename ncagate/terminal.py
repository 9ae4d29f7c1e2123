"""What the commands share: their settings, their exit codes, and how they say what they found or what went wrong."""

from __future__ import annotations

import json
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Any, Self

import typer
from pydantic import ValidationError

from ncagate.settings import Settings


class Exit(IntEnum):
    """Exit codes of all commands, and what they mean."""

    meaning: str

    DONE = 0, "Done as asked. Masks may be flagged: see `--strict`."
    NEGATIVE = (
        1,
        "Done, and the answer is no: a scan has no result (it cannot be read, its job failed or was cancelled), no "
        "route fits, a signal has drifted. Also Python's own code of a defect, with a traceback.",
    )
    REFUSED = 2, "Not done: wrong usage, a wrong setting, a refusal, something that is not installed."
    FLAGGED = 3, "Done, and with `--strict` a mask is flagged."
    UNAVAILABLE = (
        4,
        "Not done, or not yet: nobody answers, the service is busy, or the job has not ended in time. Try again later.",
    )
    INTERRUPTED = 130, "Ctrl-C."

    def __new__(cls, value: int, meaning: str) -> Self:
        """A number with words."""
        one = int.__new__(cls, value)
        one._value_, one.meaning = value, meaning
        return one


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit code 3 where a mask is flagged.")]


class told:  # noqa: N801  # reads as a sentence where it is used
    """Expected errors become one line on stderr and `Exit.REFUSED`; anything else keeps its traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        code = getattr(type(error), "code", None)
        if isinstance(code, str):
            complain(str(error), code)
            raise typer.Exit(Exit.REFUSED) from error


def complain(text: str, code: str) -> None:
    """One line on stderr."""
    typer.echo(f"ncagate: {text} [{code}]", err=True)


def print_json(value: Any) -> None:
    """The value as JSON on stdout; moments as RFC 3339."""
    typer.echo(to_json(value, indent=2))


def to_json(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON."""
    return json.dumps(value, indent=indent, default=datetime.isoformat)


def chosen_settings(**chosen: Any) -> Settings:
    """The environment's settings, with what the command line says on top."""
    try:
        return Settings(**{name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        complain(f"the setting {first['loc'][0]}: {first['msg']}", "invalid_setting")
        raise typer.Exit(Exit.REFUSED) from None
