"""What the commands share: their settings, and how they say what went wrong."""

from __future__ import annotations

from typing import Any

import typer
from pydantic import ValidationError

from ncagate.settings import Settings

UNREADABLE = 2
"""Exit code where a scan could not be read, or a command not be done as asked."""


class told:  # noqa: N801  # reads as a sentence where it is used
    """Expected errors become one line on stderr and exit code 2; anything else keeps its traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        code = getattr(type(error), "code", None)
        if isinstance(code, str):
            typer.echo(f"ncagate: {error} [{code}]", err=True)
            raise typer.Exit(UNREADABLE) from error


def chosen_settings(**chosen: Any) -> Settings:
    """The environment's settings, with what the command line says on top."""
    try:
        return Settings(**{name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        typer.echo(f"ncagate: the setting {first['loc'][0]}: {first['msg']} [invalid_setting]", err=True)
        raise typer.Exit(UNREADABLE) from None
