"""How a session reports what it does: the command line shows it, Python programs may."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparc.extraction import Progress
    from sparc.training.trainer import Step


class Listener:
    """Hears what happens while a verb works: this one passes warnings on, and is otherwise silent."""

    def loading(self, what: str) -> None:
        """Something that takes seconds to load is about to be loaded: PyTorch, or the backbone of a stream."""

    def note(self, text: str) -> None:
        """Something worth a line that is no problem."""

    def warn(self, text: str) -> None:
        """Something that may make the result useless."""
        warnings.warn(text, UserWarning, stacklevel=2)

    def extracting(self, progress: Progress) -> None:
        """Some samples were extracted."""

    def step(self, step: Step) -> None:
        """A training step was taken."""

    def progress(self, title: str, unit: str, done: int, total: int, note: str = "") -> None:
        """Some parts of an evaluation, a localisation or an ablation are done."""


SILENT = Listener()
