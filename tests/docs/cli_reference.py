"""Writes docs/cli.md from the commands: `make docs-cli`. What stands above the mark is written by hand."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from ncagate.cli import app
from ncagate.terminal import Exit

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
MARK = "<!-- From here on written by `make docs-cli`. -->"


def page(text: str) -> str:
    """The page ``text`` as it should be."""
    head, mark, _ = text.partition(MARK)
    return f"{head}{mark}\n\n{_exit_codes()}\n\n" + "\n\n".join(_commands(get_command(app), "ncagate")) + "\n"


def _exit_codes() -> str:
    rows = [f"| {one.value} | {one.meaning} |" for one in Exit]
    return "\n".join(["## Exit codes", "", "| code | meaning |", "|---|---|", *rows])


def _commands(command: Any, name: str) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield _described(command, name)
        return
    for below, one in sorted(command.commands.items()):
        yield from _commands(one, f"{name} {below}")


def _described(command: Any, name: str) -> str:
    shown = [one for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
    usage = " ".join([name, *(_usage(one) for one in shown if one.param_type_name == "argument"), "[OPTIONS]"])
    lines = [f"## {name}", "", inspect.cleandoc(command.help), "", f"    {usage}"]
    if shown:
        lines += ["", "| | default | |", "|---|---|---|", *(_row(one) for one in shown)]
    return "\n".join(lines)


def _usage(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _row(one: Any) -> str:
    names = one.name.upper() if one.param_type_name == "argument" else ", ".join([*one.opts, *one.secondary_opts])
    return f"| `{names}` | {_default(one)} | {one.help or ''} |"


def _default(one: Any) -> str:
    if one.required:
        return "required"
    if one.default is None or one.default is False or one.default == ():
        return ""
    values = one.default if isinstance(one.default, list | tuple) else [one.default]
    return " ".join(f"`{value}`" for value in values)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
