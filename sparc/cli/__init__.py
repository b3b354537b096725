"""The command line: parse, call, print. The only place that prints, and the only one that catches a SparcError."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import typer

from sparc.errors import SparcError

# click's UsageError, which typer carries inside itself and does not export.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `sparc` and exit: 0 done, 1 an error, 2 a usage error, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    try:
        from sparc.cli.app import app

        words = [argument for argument in arguments if argument != "--debug"]
        code = app(words, prog_name="sparc", standalone_mode=False)
    except Exception as error:
        if debug:
            traceback.print_exc()
        code = _explain(error)
    except KeyboardInterrupt:
        code = _fail("interrupted", "run the same command again: what is complete in the store is kept", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    if isinstance(error, SparcError):
        return _fail(error.message, error.hint, 1)
    if isinstance(error, _UsageError):
        message, _, suggestion = error.format_message().rstrip(".").partition(" Did you mean")  # type: ignore[attr-defined]
        command = getattr(getattr(error, "ctx", None), "command_path", "sparc")
        hint = f"did you mean{suggestion} See" if suggestion else "see"
        return _fail(message[:1].lower() + message[1:], f"{hint}: {command} --help", 2)
    if isinstance(error, typer.Abort):
        return _fail("aborted", "run the command again", 130)
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return _fail(text, "this is a bug in sparc or in a plugin; run again with --debug and report what it shows", 1)


def _fail(message: str, hint: str, code: int) -> int:
    lines = " ".join(message.split()), " ".join(hint.split())
    print(f"error: {lines[0]}\nhint:  {lines[1]}", file=sys.stderr)
    return code
