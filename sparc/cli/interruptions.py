"""The hint after Ctrl-C, SIGTERM or the end of `--max-time`: what is kept, and how to go on, for each command."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "run the same command again: it had written nothing yet, or a whole file"
AS_IT_WAS = "run the same command again: it begins anew, and what the run had before is still there"
FEATURES = "the features that were extracted are kept, but for the last seconds"

KEPT = {
    "train": f"run the same command again: {FEATURES}",
    "extract": f"run the same command again: {FEATURES}",
    "ablate": f"run it again, with --out and the folder that it began: finished runs are kept, and {FEATURES}",
    "attach": f"run the same command again: {FEATURES}",
    "evaluate": "run the same command again: it measures anew; the run keeps its last evaluation that ended",
    "explore": "run the same command again: it writes the page anew; a page that the run had before is still there",
    "search": "run the same command again: codes and features of folders that were complete are kept",
    "encode": NOTHING,
    "localize": NOTHING,
    "complete": AS_IT_WAS,
    "detach": NOTHING,
    "export": "run the same command again: it writes the folder anew",
    "import": "run the same command again, with the same files: it begins anew",
    "bench": "run the same command again: a measurement keeps nothing",
    "plan": NOTHING,
    "doctor": NOTHING,
    "info": NOTHING,
    "plugins": NOTHING,
}
RESUMED = (
    "if the training had begun, sparc train --resume RUN goes on from its last checkpoint; else run the command again"
)


def kept(words: Sequence[str], *, at_once: bool = False) -> str:
    """Return what the command of these words keeps when it is interrupted. at_once: a second signal ended it."""
    name = next((word for word in words if not word.startswith("-")), "")
    if "--plan" in words or "--dry-run" in words:
        return "run the same command again: it had written nothing"
    if "--resume" in words or any(word.startswith("--resume=") for word in words):
        return "run the same command again: it goes on from the last checkpoint"
    if at_once and name in ("train", "attach"):
        return RESUMED
    return KEPT.get(name, "run the same command again")
