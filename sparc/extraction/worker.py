"""The process that extracts: an order comes as JSON on standard input, events go as JSON lines to standard output.

A process of its own: the memory of a backbone and of its batches ends with it, and no process of the user's has its
allocator changed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from sparc.errors import SparcError, say_warnings
from sparc.extraction.plan import Job, Order
from sparc.plugins.contracts import Backbone, Dataset
from sparc.plugins.registry import Registry, checked_params, discover
from sparc.storage.provenance import library_versions
from sparc.system.memory import keep_freed_memory

if TYPE_CHECKING:
    from sparc.extraction.forward import Forward, Spent
    from sparc.extraction.shards import Target

Emit = Callable[[dict[str, Any]], None]


def run(order: Order, registry: Registry, emit: Emit) -> None:
    """Do the jobs: of each split, all streams of a modality at once. Raises SparcError.

    All splits are opened first: what is wrong with the last shows before the first is computed.
    """
    from sparc.extraction.estimate import estimate
    from sparc.extraction.forward import Spent
    from sparc.extraction.shards import Part, extract_streams

    datasets = {job.split: _opened(job, registry) for job in {job.split: job for job in order.jobs}.values()}
    backbones = _loaded(order.jobs, registry, emit)
    for jobs in _at_once(order.jobs, registry):
        dataset = datasets[jobs[0].split]
        forward = _forward(jobs, backbones, registry)
        streams = [job.stream.alias for job in jobs]
        emit({"event": "begin", "streams": streams, "split": jobs[0].split})
        if order.probe:
            emit({"event": "probed", "found": dataclasses.asdict(estimate(dataset, forward, jobs[0].how.store_dtype))})
            continue
        spent = Spent()
        manifests = extract_streams(
            dataset,
            forward,
            {job.stream.alias: _target(job, forward, registry) for job in jobs},
            part=Part(*order.part),
            spent=spent,
            report=partial(_report, emit, spent),
        )
        skipped = next((list(manifest.skipped) for manifest in manifests.values() if manifest is not None), [])
        emit({"event": "end", "skipped": skipped, "spent": dataclasses.asdict(spent)})


def _report(emit: Emit, spent: Spent, done: int, total: int) -> None:
    emit({"event": "progress", "done": done, "total": total, "spent": dataclasses.asdict(spent)})


def _loaded(jobs: list[Job], registry: Registry, emit: Emit) -> dict[str, Backbone]:
    """Every backbone once, so that models with several towers are loaded once too."""
    found: dict[str, Backbone] = {}
    for job in jobs:
        if job.stream.alias not in found:
            emit({"event": "load", "stream": job.stream.alias})
            spec = registry.backbone(job.stream.name)
            found[job.stream.alias] = spec.load(checked_params(spec, job.stream), job.how.device)
    return found


def _at_once(jobs: list[Job], registry: Registry) -> Iterator[list[Job]]:
    """Jobs that read the same images or captions."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.split, registry.backbone(job.stream.name).modality), []).append(job)
    yield from groups.values()


def _opened(job: Job, registry: Registry) -> Dataset:
    source = registry.dataset(job.dataset.name)
    return source.open(checked_params(source, job.dataset), job.split)


def _forward(jobs: list[Job], backbones: dict[str, Backbone], registry: Registry) -> Forward:
    import torch

    from sparc.extraction.forward import Computing, Forward, dtype_of

    how = jobs[0].how
    if how.precision == "float32":
        torch.backends.cudnn.allow_tf32 = False  # else convolutions have ten bits
    tokens = dtype_of(how.store_dtype) if how.tokens else None
    computing = Computing(how.device, how.precision, how.compile, how.skip_bad, tokens)
    modality = registry.backbone(jobs[0].stream.name).modality
    return Forward({job.stream.alias: backbones[job.stream.alias] for job in jobs}, modality, computing)


def _target(job: Job, forward: Forward, registry: Registry) -> Target:
    from sparc.extraction.shards import Target

    spec = registry.backbone(job.stream.name)
    return Target(
        directory=job.directory,
        backbone=spec.name,
        params=checked_params(spec, job.stream).model_dump(mode="json", exclude={"weights"}),
        weights=job.weights,
        dataset=job.dataset.name,
        split=job.split,
        dtype=job.how.store_dtype,
        precision=job.how.precision,
        preprocessing=getattr(forward.backbones[job.stream.alias], "preprocessing", None),
        versions=library_versions(),
    )


def main() -> None:
    """Read an order, do it, report; the error of a failed job is an event too."""
    # Ctrl-C reaches the whole process group; the parent decides, and ends this process with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    say_warnings()
    # Libraries print what they like: it must not mix with the events.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    try:
        run(Order.model_validate_json(sys.stdin.buffer.read()), discover(), emit)
    except BrokenPipeError:
        os._exit(1)  # The parent is gone, so nobody waits for what is left to do.
    except SparcError as error:
        emit({"event": "error", "kind": type(error).__name__, "message": error.message, "hint": error.hint})
    except Exception as error:
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        emit({"event": "error", "kind": "crash", "message": message, "traceback": traceback.format_exc()})


if __name__ == "__main__":
    main()
