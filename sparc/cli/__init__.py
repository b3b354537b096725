"""The command line: parse, call, print. Only this package prints, and only it catches a SparcError."""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import os
import shutil
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from sparc.cli.interruptions import kept
from sparc.config.wording import found
from sparc.errors import FailedElsewhere, InvalidConfig, SparcError, say_warnings
from sparc.system.cells import without_controls
from sparc.system.processes import leads
from sparc.system.refusals import CONTENT, refusal

INTERRUPTED = 130
INTERRUPTION = "interrupted"
_words: list[str] = []
"""Words of the command that runs."""

# click's UsageError, which typer bundles and does not export.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


class Ended(Exception):
    """A command that ended before its work was done, with the reason; of a KeyboardInterrupt, typer keeps none."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `sparc` and exit: 0 for success, 1 for an error, 2 for a usage error, 130 if interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    _words[:] = [argument for argument in arguments if argument != "--debug"]
    why = INTERRUPTION
    if not debug:
        say_warnings()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # Windows gives a pipe an encoding without arrows and dashes
    with _interruptible():
        try:
            from sparc.cli.app import app

            command = typer.main.get_command(app)
            _refuse_empty_paths(command, _words)
            code = command(list(_words), prog_name="sparc", standalone_mode=False)
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Exception as error:
            if debug:
                traceback.print_exc()
            code = _explain(error)
            why = str(error) if isinstance(error, Ended) else INTERRUPTION
    if code == INTERRUPTED and leads():
        _fail(why, kept(_words), INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM, which schedulers send, as Ctrl-C; a second signal ends the process at once, without a traceback.

    A signal that the process was started to ignore stays ignored. Only the main thread can have handlers.
    """
    before: dict[signal.Signals, Any] = {}

    def interrupt(number: int, frame: object) -> None:
        for one in before:
            signal.signal(one, leave)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        numbers = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
        before = {one: signal.getsignal(one) for one in numbers}
        for one in numbers:
            signal.signal(one, interrupt)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def leave(number: int, frame: object) -> None:
    """Say that the command was interrupted, and end the process at once."""
    os.write(2, f"error: {INTERRUPTION}\nhint:  {kept(_words, at_once=True)}\n".encode())
    os._exit(INTERRUPTED)


def _refuse_empty_paths(command: Any, words: Sequence[str]) -> None:
    """Raise InvalidConfig for an option with an empty path, which typer would turn into the current folder."""
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    for parameter in command.params:
        for name in parameter.opts if _kind(parameter) == "path" else ():
            if f"{name}=" in words or (name, "") in itertools.pairwise(words):
                example = parameter.metavar or "PATH"
                raise InvalidConfig(
                    f"{name}: expected a path, found ''", hint=f"as in {name} {example}; or leave {name} out"
                )


def _kind(parameter: Any) -> str:
    """Return the name of a parameter's type, such as `path` or `int`; versions of typer keep it in two places."""
    described = getattr(parameter, "type_descriptor", None)
    name = parameter.type.name if described is None else getattr(described.annotation, "__name__", "")
    return str(name).lower()


def _explain(error: Exception) -> int:
    if isinstance(error, FailedElsewhere):
        return 1
    if isinstance(error, SparcError):
        return _fail(error.message, error.hint, 1, error.details)
    if isinstance(error, _UsageError):
        message, hint = _usage(error)
        return _fail(message, hint, 2) if message and leads() else 2  # no message: typer printed the help
    if isinstance(error, Ended | typer.Abort):
        return INTERRUPTED
    if (refused := refusal(error, "go on", CONTENT)) is not None:
        return _fail(refused.message, refused.hint, 1)
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return _fail(text, "this is a bug in sparc or in a plugin; run it again with --debug and report the traceback", 1)


def _usage(error: Any) -> tuple[str, str]:
    """Return message and hint of a usage error; the hint names the nearest command or option and the help."""
    context = getattr(error, "ctx", None)
    wrong = getattr(error, "option_name", None)
    message, _, near = error.format_message().partition(" Did you mean ")
    near = near.rstrip("?")
    if wrong and context:
        options = [name for parameter in context.command.params for name in parameter.opts if name.startswith("--")]
        near = next(iter(difflib.get_close_matches(wrong, options, n=1)), "")
    help_is = f"see: {context.command_path if context else 'sparc'} --help"
    hint = f"did you mean {near}? {help_is}" if near else help_is
    if (parameter := getattr(error, "param", None)) is not None and "Input should be" in message:
        return _wrong_value(parameter), help_is
    return message[:1].lower() + message[1:].rstrip("."), hint


def _wrong_value(parameter: Any) -> str:
    """Return the message for an argument or option that is no number, or none in its bounds."""
    name = next(iter(parameter.opts), parameter.name)
    kind = "a whole number" if _kind(parameter).startswith("int") else "a number"
    holder = parameter if hasattr(parameter, "min") else parameter.type
    low, high = (getattr(holder, bound, None) for bound in ("min", "max"))
    bounds = "".join(f" {word} {bound:g}" for word, bound in (("from", low), ("to", high)) if bound is not None)
    after = [word.partition("=")[2] for word in _words if word.startswith(f"{name}=")]
    after += [word for before, word in itertools.pairwise(_words) if before == name]
    return f"{name}: expected {kind}{bounds}" + (f", found {found(after[-1])}" if after else "")


def _fail(message: str, hint: str, code: int, details: Sequence[str] = ()) -> int:
    lines = [f"error: {message}", *(f"       {line}" for line in details), f"hint:  {hint}"]
    for line in lines:
        text = f"{line[:7]}{without_controls(' '.join(line[7:].split()))}"
        for part in _wrapped(text) if sys.stderr.isatty() else [text]:
            print(part, file=sys.stderr)
    return code


def _wrapped(text: str) -> list[str]:
    """Break a line between words at the width of the terminal, indented below the first. A long word stays whole."""
    width = max(40, shutil.get_terminal_size().columns)
    return textwrap.wrap(
        text, width, subsequent_indent=" " * 7, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
