"""Writes docs/reference/cli.md from the commands themselves: python docs/tools/cli_reference.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from sparc.cli.app import app

PAGE = Path(__file__).parent.parent / "reference" / "cli.md"
KINDS = {bool: "", int: "INTEGER", float: "NUMBER", Path: "PATH", str: "TEXT"}
INTRODUCTION = """# Command line

Made from the commands by `python docs/tools/cli_reference.py`; a test compares. `sparc COMMAND --help` says the same.

An error is two lines, `error:` and `hint:`. Exit codes: 0 done, 1 an error, 2 a usage error, 130 interrupted.
`--debug`, in any place, shows the traceback of an error. `sparc --version` prints the version.
"""


def page() -> str:
    """Return the page: a section for each command, in the order of `sparc --help`."""
    return "\n".join([INTRODUCTION, *_sections("sparc", typer.main.get_command(app))])


def _sections(name: str, command: Any) -> Iterator[str]:
    for below, child in getattr(command, "commands", {}).items():
        if hasattr(child, "commands"):
            yield from _sections(f"{name} {below}", child)
        else:
            yield _section(f"{name} {below}", child)


def _section(name: str, command: Any) -> str:
    hints = get_type_hints(command.callback)
    parameters = [one for one in command.params if one.name != "help"]
    options = any(one.param_type_name == "option" for one in parameters)
    usage = " ".join(
        [name, *(_metavar(one) for one in parameters if one.param_type_name == "argument"), "[OPTIONS]" * options]
    )
    rows = [f"| {_names(one)} | {_takes(one, hints)} | {_help(one)} |" for one in parameters]
    table = "\n".join(["| | | |", "| --- | --- | --- |", *rows]) + "\n"
    return "\n\n".join([f"## `{name}`", f"```text\n{usage}\n```", _prose(command.help), table if rows else ""])


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`"
    return ", ".join(f"`{name}`" for name in parameter.opts)


def _prose(text: str) -> str:
    """The docstring, with its examples as one block of code."""
    said, _, examples = text.partition("\nExample")
    lines = [line.strip() for line in examples.splitlines()[1:] if line.strip()]
    block = "\n".join(["```bash", *lines, "```"])
    return "\n\n".join([said.strip(), block] if lines else [said.strip()])


def _takes(parameter: Any, hints: dict[str, Any]) -> str:
    """What stands behind the name: nothing for an argument, which is its own name, and for a flag."""
    if parameter.param_type_name == "argument":
        return ""
    (kind,) = {hints[parameter.name], *get_args(hints[parameter.name])} & KINDS.keys() or {str}
    if kind is bool:
        return ""
    return f"`{parameter.metavar or KINDS[kind]}`"


def _help(parameter: Any) -> str:
    """Its help; and what it is where nothing is said, unless that is in the help."""
    default = parameter.default
    said = [parameter.help or ""]
    if parameter.required:
        said.append("Required.")
    elif default not in (None, (), [], False):
        said.append(f"Default: `{default}`.")
    return " ".join(said).replace("|", "\\|")


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
