"""All errors that a user can cause, as one tree.

SparcError
  InvalidConfig        an invalid option, config key or combination
  UnknownName          a stream or dataset that no plugin offers
  PluginError          a plugin that breaks its contract
  WeightsUnavailable   pretrained weights that are not on this machine and cannot be downloaded
  MissingData          a file, folder, store or run that does not exist
  BadSample            a sample that cannot be read
  BadFeatures          features of the wrong shape, or not finite
  MisalignedStreams    streams whose samples differ
  CorruptFile          a truncated or altered file
  IncompatibleFormat   a store or checkpoint that this version cannot read
  InUse                a folder that another process works in
  StorageError         a full disk, a missing permission, a lost mount, or another refusal of the file system
  OutOfMemory          a lack of memory
  ProcessLost          a process of a training by several that has ended
  FailedElsewhere      an error that another of these processes reports

The message states what was expected and what was found; the hint states what to do. The command line prints both and
exits with 1. No other code swallows a SparcError.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""Escape sequences with which a terminal changes colour or place."""


class SparcError(Exception):
    """An error that a user can cause and fix, with a message and a hint of one line each.

    `details` are lines between them, such as further problems of the same data.
    """

    problems: Problems | None = None
    """The problems that this one error names."""

    def __init__(self, message: str, *, hint: str, details: Sequence[str] = ()) -> None:
        message, hint = _plain(message), _plain(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(map(_plain, details))

    def __str__(self) -> str:
        """Return all that the command line prints: the message, the details and the hint, a line each.

        Tracebacks, notebooks and `print(error)` show this; `message` is the first line alone.
        """
        return "\n".join((self.message, *self.details, f"hint: {self.hint}"))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the texts, since the constructors of subclasses take other arguments."""
        return remade, (type(self), self.message, self.hint, self.details)


def _plain(text: str) -> str:
    """Return a text without the colours and control characters that libraries and file names bring with them."""
    text = _COLOURS.sub("", text)
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


def remade(kind: type[SparcError], message: str, hint: str, details: Sequence[str] = ()) -> SparcError:
    """Rebuild a pickled error without calling the constructor of its class."""
    error = kind.__new__(kind)
    SparcError.__init__(error, message, hint=hint, details=details)
    return error


def said(error: BaseException) -> str:
    """Return the text of an error for a message of another one: the message of a SparcError, without its hint."""
    return error.message if isinstance(error, SparcError) else str(error)


CORRECT_ALL = "correct these lines and files"


def counted(number: int, thing: str, things: str = "") -> str:
    """Return a number with its thing, in the singular or the plural: `1 sample`, `2 samples`."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


class Problems:
    """Errors in the order in which they are found: the first twenty, and the number of all."""

    MOST = 20

    def __init__(self, start: str = "") -> None:
        """Begin an empty list. `start` is the text with which all messages begin, such as a path; it is shown once."""
        self._start = start
        self.first: list[SparcError] = []
        self._count = 0
        self._grave: list[SparcError] = []
        self._grave_count = 0

    def __len__(self) -> int:
        """Return the number of all problems."""
        return self._count

    def add(self, error: SparcError) -> None:
        """Add an error, or each of those that `joined` made one.

        Its traceback is dropped, since it keeps all local variables alive.
        """
        if error.problems is not None:
            self._extend(error.problems)
            return
        self._count += 1
        if len(self.first) < self.MOST:
            self.first.append(error.with_traceback(None))
        if not isinstance(error, BadSample):
            self._grave_count += 1
            self._grave += [error] if len(self._grave) < self.MOST else []

    def _extend(self, others: Problems) -> None:
        for error in others.first:
            self.add(error)
        self._count += len(others) - len(others.first)
        self._grave_count += others._grave_count - sum(not isinstance(one, BadSample) for one in others.first)

    @property
    def grave(self) -> Problems:
        """Problems that `--skip-bad` does not pass over: all but samples that cannot be read."""
        found = Problems(self._start)
        found.first = found._grave = self._grave
        found._count = found._grave_count = self._grave_count
        return found

    def lines(self) -> list[str]:
        """Return a line for each of the first problems, and one with the number of the others."""
        rest = len(self) - len(self.first)
        lines = [line for one in self.first for line in (one.message.removeprefix(self._start), *one.details)]
        return lines + ([f"and {rest:,} more"] if rest else [])

    def joined(self) -> SparcError:
        """Return one error for all problems, of which there is at least one: the first, with the others as details."""
        first = self.first[0]
        if len(self) == 1:
            return first
        others = f"; and {len(self) - 1:,} more {'problem' if len(self) == 2 else 'problems'}"
        kind, hint = type(first), first.hint
        if 0 < len(grave := self.grave) < len(self):
            kind = type(grave.first[0])
            hint = f"{CORRECT_ALL}; --skip-bad alone leaves out the {counted(len(self) - len(grave), 'sample')} that "
            hint += "cannot be read, and nothing else"
        error = remade(kind, first.message + others, hint, self.lines()[1:])
        error.problems = self
        return error


class InvalidConfig(SparcError):
    """An invalid option, config key or combination of them."""


class UnknownName(SparcError):
    """A stream or dataset that no installed plugin offers."""


class PluginError(SparcError):
    """A plugin that breaks its contract."""


class WeightsUnavailable(SparcError):
    """Pretrained weights that are not on this machine and cannot be downloaded."""

    def __init__(self, backbone: str, file: str, reason: str, *more: tuple[str, str, str]) -> None:
        """Name a backbone, its file and why it cannot be had; `more` are the same three of further backbones."""
        self.missing = ((backbone, file, reason), *more)
        names = dict.fromkeys(f"'{name}'" for name, _, _ in self.missing)
        files: dict[str, dict[str, None]] = {}
        for _, file, reason in self.missing:
            files.setdefault(reason, {})[file] = None
        super().__init__(
            f"the weights of {', '.join(names)} are not on this machine and could not be downloaded: "
            + "; ".join(f"{', '.join(some)} ({reason})" for reason, some in files.items()),
            hint=(
                "connect to the network; or point HF_HOME to a filled Hugging Face cache; or give a local file or "
                f"folder, --stream '{backbone}[weights=PATH]'; or use the demo's streams, 'sparc train' alone; "
                f"or '{backbone}[weights=random]' for a dry run"
            ),
        )

    @staticmethod
    def joined(errors: Sequence[WeightsUnavailable]) -> WeightsUnavailable:
        """Return one error for all weights that are missing. `errors` has at least one."""
        first, *more = (one for error in errors for one in error.missing)
        return WeightsUnavailable(*first, *more)


class MissingData(SparcError):
    """A file, folder, store or run that does not exist."""


class BadSample(SparcError):
    """A sample that cannot be read, such as an image that does not decode or an empty caption."""


class BadFeatures(SparcError):
    """Features of the wrong shape, or not finite."""


class MisalignedStreams(SparcError):
    """Streams whose samples differ."""


class CorruptFile(SparcError):
    """A truncated or altered file."""


class IncompatibleFormat(SparcError):
    """A store or checkpoint of a format that this version cannot read."""


class InUse(SparcError):
    """A folder that another process works in; the message names the process."""


class StorageError(SparcError):
    """A full disk, a missing permission, a lost mount, or another refusal of the file system."""


class OutOfMemory(SparcError):
    """A lack of memory; the message states what was too large."""


class ProcessLost(SparcError):
    """A process of a training by several processes that ended, so that the others cannot go on."""


class FailedElsewhere(SparcError):
    """An error that another process of the same training reports, so that this one says nothing."""

    def __init__(self) -> None:
        super().__init__("another process has failed", hint="see what that process says")


class Interrupted(KeyboardInterrupt):
    """Work that a signal stopped and that can be resumed: a training, an evaluation or an ablation.

    After one signal the step under way is complete and the state is saved; a second signal loses what was not saved.
    """

    def __init__(self, path: Path, how: str, why: str = "") -> None:
        """Name the directory, how to resume, and why the work ended, if not by a signal."""
        super().__init__(f"{why or 'interrupted'}; resume what is in {path} with {how}")
        self.path = path
        """Directory of the run or of the ablation."""
        self.why = why
        """Reason for the end, such as that the time is up; empty after Ctrl-C or SIGTERM."""


class TimeUp(KeyboardInterrupt):
    """The end of the time that the option `max-time` gave."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"the time that --max-time {limit} gave is up")


def install(extra: str) -> str:
    """Return the hint for a missing optional dependency: how to add one of sparc's extras."""
    return f"add the extra '{extra}': uv run --extra {extra} ..., or pip install 'sparc-sae[{extra}]'"


def say_warnings() -> None:
    """Print warnings as one line on standard error, as the commands of sparc do; each text once."""
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = _plain(str(message))
        if text not in shown:
            shown.add(text)
            sys.stderr.write(f"warning: {text}\n")

    warnings.showwarning = show
