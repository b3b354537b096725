"""The log of a training: `metrics.jsonl`, which a resumed training continues to the bit, and `speed.jsonl`.

How fast a training was depends on the machine and the hour, so it has a file of its own: two trainings of the same
options and features have the same metrics. `docs/reference/checkpoint-format.md` is normative. Imports no torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparc.system.refusals import reading

LOG = "metrics.jsonl"
HELD_OUT = "held-out/"
"""Start of the names of what was measured on held-out samples; the name of the same term on a batch follows."""
RATE = "samples_per_second"
"""Name of the rate in `speed.jsonl`."""

Record = dict[str, Any]


def read_log(path: Path) -> tuple[list[Record], int]:
    """Return the lines of a log, numbers alone, and how many lines are damaged. Empty without a log.

    The last line may be cut, by a kill or because it is being written. Raises StorageError.
    """
    try:
        with reading(path):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return [], 0
    found = [parsed(line) for line in lines if line.strip()]
    return [one for one in found if one is not None], found.count(None)


def parsed(line: str) -> Record | None:
    """Return a line of a log, with an integer `step` and floats by name; None if it is damaged."""
    try:
        record = json.loads(line)
        values = {key: float(value) for key, value in record.items() if isinstance(value, int | float)}
        return {**values, "step": int(record["step"])}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
