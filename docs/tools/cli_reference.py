"""Writes docs/reference/cli.md from the commands: python docs/tools/cli_reference.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from sparc.cli.app import app

PAGE = Path(__file__).parent.parent / "reference" / "cli.md"
KINDS = {bool: "", int: "INTEGER", float: "NUMBER", Path: "PATH", str: "TEXT"}
INTRODUCTION = """# Command line

Made from the commands by `python docs/tools/cli_reference.py`; a test compares. `sparc COMMAND --help` prints the same.
[Options](options.md) lists what each option accepts, and its name in Python and in a TOML file.

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
    table = "\n".join(["| option | value | |", "| --- | --- | --- |", *rows]) + "\n"
    return "\n\n".join([f"## `{name}`", f"```text\n{usage}\n```", _prose(command.help), table if rows else ""])


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`"
    return ", ".join(f"`{name}`" for name in parameter.opts)


def _prose(text: str) -> str:
    """Return the docstring, with its examples as one block of code."""
    prose, _, examples = text.partition("\nExample")
    lines = [line.strip() for line in examples.splitlines()[1:] if line.strip()]
    block = "\n".join(["```bash", *lines, "```"])
    return "\n\n".join([prose.strip(), block] if lines else [prose.strip()])


def _takes(parameter: Any, hints: dict[str, Any]) -> str:
    """Return the value that follows the name; empty for a flag, and for an argument, which is a value itself."""
    if parameter.param_type_name == "argument":
        return ""
    (kind,) = {hints[parameter.name], *get_args(hints[parameter.name])} & KINDS.keys() or {str}
    if kind is bool:
        return ""
    return f"`{parameter.metavar or KINDS[kind]}`"


def _help(parameter: Any) -> str:
    """Return the help, with the default, unless the help states it."""
    default = parameter.default
    parts = [parameter.help or ""]
    if parameter.required:
        parts.append("Required.")
    elif default not in (None, (), [], False):
        parts.append(f"Default: `{default}`.")
    return " ".join(parts).replace("|", "\\|")


def write() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
