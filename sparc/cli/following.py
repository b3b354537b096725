"""`sparc info --follow`: the log of a training, line by line, until the training ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import fmean

from sparc.cli.output import say
from sparc.cli.progress import console, rate
from sparc.storage.belonging import doubt_about_log
from sparc.storage.provenance import Provenance
from sparc.storage.run import Run
from sparc.storage.training_log import HELD_OUT, RATE, Record, read_log
from sparc.system.locks import holder

POLL = 0.5
"""Seconds between two looks at the log."""


def wait_for_start(run: Run) -> None:
    """Wait while a process prepares a training in this folder, which is no run yet."""
    if run.begun or holder(run.path) is None:
        return
    say(console, f"{run.path} is being prepared")
    while not run.begun and holder(run.path) is not None:
        time.sleep(POLL)


def follow(run: Run, provenance: Provenance) -> None:
    """Print the logged steps of a run, old and new, until its training ends or Ctrl-C."""
    try:
        for line in lines(run, provenance.options.epochs):
            say(console, line)
    except KeyboardInterrupt:
        return


def lines(run: Run, epochs: int) -> Iterator[str]:
    """Yield a line for each logged step, and one on how the training ended, when it does."""
    last = 0
    while True:
        # Both are asked before the log is read, so that the last lines are not missed.
        finished, runs = run.finished, holder(run.path) is not None
        speeds = {one["step"]: one.get(RATE) for one in read_log(run.speed)[0]}
        for record in read_log(run.metrics)[0]:
            if record["step"] > last:
                last = record["step"]
                yield described(record, epochs, speeds.get(last))
        if finished:
            if (doubt := doubt_about_log(run.path)) is not None:
                yield f"warning: {doubt}"
            yield f"the training is finished: sparc info {run.path}"
            return
        if not runs:
            yield f"no process trains this run; resume it with: sparc train --resume {run.path}"
            return
        time.sleep(POLL)


def described(record: Record, epochs: int, speed: float | None) -> str:
    """Return a line of the log in words: means over streams of each kind of loss."""
    parts = [f"step {record['step']:,}  epoch {record.get('epoch', 0):.4g} of {epochs}", *_losses(record, "")]
    if dead := [int(value) for name, value in record.items() if name.startswith("dead/")]:
        parts.append(f"dead {min(dead):,}" if len(set(dead)) == 1 else f"dead {min(dead):,} to {max(dead):,}")
    parts += [rate(speed, "samples")] if speed else []
    if held_out := _losses(record, HELD_OUT):  # last: not every line has them
        parts.append("held out: " + "  ".join(held_out))
    skipped = [name.removeprefix("skipped/") for name in record if name.startswith("skipped/")]
    parts += [f"{name} was not finite: skipped" for name in skipped]
    return "  ".join(parts)


def _losses(record: Record, start: str) -> list[str]:
    """Return the loss, and the mean over streams of each kind of term, of those whose names begin with `start`."""
    losses = [f"loss {record[f'{start}loss']:.4f}"] if f"{start}loss" in record else []
    for kind in ("self", "cross", "aux"):
        values = [value for name, value in record.items() if name.startswith(f"{start}{kind}/")]
        losses += [f"{kind} {fmean(values):.4f}"] if values else []
    return losses
