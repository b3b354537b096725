"""Reports of a session's progress: the command line prints them, and Python programs can receive them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparc.extraction import Progress
    from sparc.storage.run import Run
    from sparc.training.trainer import Step


class Listener:
    """Receiver of reports while a verb works. This base class issues warnings and ignores everything else."""

    def loading(self, what: str) -> None:
        """Report that something slow is about to load: PyTorch, a run, or the backbone of a stream."""

    def doing(self, what: str) -> None:
        """Report that a step begins that may take seconds and cannot tell how far it is, such as drawing a picture."""

    def note(self, text: str) -> None:
        """Report something worth a line of output."""

    def warn(self, text: str) -> None:
        """Report something that may make the result useless."""
        warnings.warn(text, UserWarning, stacklevel=2)

    def extracting(self, progress: Progress) -> None:
        """Report that some samples were extracted."""

    def step(self, step: Step) -> None:
        """Report a training step."""

    def evaluated(self, run: Run) -> None:
        """Report that a run was evaluated: its files are written, and the benchmark of localisation may follow."""

    def progress(self, title: str, unit: str, done: int, total: int, note: str = "") -> None:
        """Report that `done` of `total` parts of an evaluation, a localisation or an ablation are done.

        `note` names the part that begins.
        """


SILENT = Listener()
