"""Everything that can go wrong because of input, as one tree.

SparcError
  InvalidConfig        an option, config key or combination that makes no sense
  UnknownName          a stream or dataset that no plugin offers
  PluginError          a plugin that breaks its contract
  WeightsUnavailable   pretrained weights that cannot be had here
  MissingData          a file, folder, store or run that is not there
  BadSample            a sample that cannot be read
  BadFeatures          features of the wrong shape, or not finite
  MisalignedStreams    streams whose samples differ
  CorruptFile          a truncated or altered file
  IncompatibleFormat   a store or checkpoint that this version cannot read
  StorageError         the disk is full or refuses

The message says what was expected and what was found, the hint says what to do. The command line prints both and exits
with 1; nothing below it catches a SparcError to hide it.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any, TextIO


class SparcError(Exception):
    """An error that a user can cause and mend: a message and a hint, each one line."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.add_note(f"hint: {hint}")  # for programs, whose tracebacks would not show it

    def __reduce__(self) -> tuple[Any, ...]:
        """Come whole from one process to another, whatever arguments the kind of error takes."""
        return remade, (type(self), self.message, self.hint)


def remade(kind: type[SparcError], message: str, hint: str) -> SparcError:
    """Make an error that was raised in another process again; its kind may take other arguments."""
    error = kind.__new__(kind)
    SparcError.__init__(error, message, hint=hint)
    return error


class InvalidConfig(SparcError):
    """An option, a config key or a combination of them that makes no sense."""


class UnknownName(SparcError):
    """A stream or dataset that no installed plugin offers."""


class PluginError(SparcError):
    """A plugin that breaks its contract."""


class WeightsUnavailable(SparcError):
    """Pretrained weights that cannot be had on this machine."""

    def __init__(self, backbone: str, file: str, reason: str) -> None:
        super().__init__(
            f"the weights of '{backbone}' are not on this machine and could not be downloaded: {file} ({reason})",
            hint=(
                "connect to the network; or point HF_HOME to a filled Hugging Face cache; or give a local file or "
                f"folder, --stream '{backbone}[weights=PATH]'; or use the demo's streams, 'sparc train' alone; "
                f"or '{backbone}[weights=random]' for a dry run"
            ),
        )


class MissingData(SparcError):
    """A file, folder, store or run that is not there."""


class BadSample(SparcError):
    """A sample that cannot be read: an image that does not decode, an empty caption."""


class BadFeatures(SparcError):
    """Features of the wrong shape, or not finite."""


class MisalignedStreams(SparcError):
    """Streams whose samples differ."""


class CorruptFile(SparcError):
    """A truncated or altered file."""


class IncompatibleFormat(SparcError):
    """A store or checkpoint of a format that this version cannot read."""


class StorageError(SparcError):
    """The disk is full, or the file system refuses."""


def say_warnings() -> None:
    """Show what is warned of as one line on standard error, as the commands of sparc do; once each."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        sys.stderr.write(f"warning: {message}\n")

    warnings.showwarning = show
