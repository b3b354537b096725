"""The worker process of an extraction: reads an order as JSON from standard input, writes events as JSON lines.

A separate process returns all memory of the backbones and their batches when it ends, and leaves the allocator of the
user's process as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sparc.errors import BadSample, SparcError
from sparc.extraction.items import check_paired
from sparc.extraction.plan import Feed, Job, Order
from sparc.plugins.contracts import Backbone, Dataset
from sparc.plugins.registry import Registry, checked_params, discover
from sparc.storage.manifest import PATHS
from sparc.storage.provenance import library_versions
from sparc.system.memory import keep_freed_memory
from sparc.system.refusals import refusal

if TYPE_CHECKING:
    from sparc.extraction.features import FeatureExtractor, WaitingTime
    from sparc.extraction.shards import Destination
    from sparc.extraction.work import Work
    from sparc.storage.manifest import Manifest

Emit = Callable[[dict[str, Any]], None]


def run(order: Order, registry: Registry, emit: Emit) -> None:
    """Do the jobs, for each split all streams of a modality together. Raises SparcError.

    All splits are opened first, so that an error in the last shows before the first is computed. Features that another
    process computes are waited for.
    """
    if order.feed is not None:
        _feed(order, order.feed, registry, emit)
        return
    if order.probe:
        _run(order, registry, emit)
        return
    from sparc.extraction.sharing import locked

    with locked(order.jobs, order.share, lambda text: emit({"event": "warning", "message": text})):
        jobs = [job for job in order.jobs if not job.done]
        if jobs:
            _run(order.model_copy(update={"jobs": jobs}), registry, emit)


def _run(order: Order, registry: Registry, emit: Emit) -> None:
    by_split = {job.split: job for job in order.jobs}
    datasets = {split: _opened(job, registry, readable=order.probe) for split, job in by_split.items()}
    for split, dataset in datasets.items():
        modalities = {registry.backbone(job.stream.name).modality for job in order.jobs if job.split == split}
        if modalities >= {"image", "text"}:
            check_paired(dataset, split)
    from sparc.extraction.estimate import estimate  # imports torch: an error of a dataset need not wait for it
    from sparc.extraction.work import Work

    backbones = _loaded(order.jobs, registry, emit)
    unfinished: list[tuple[list[Job], Work]] = []
    for jobs in _together(order.jobs, registry):
        dataset = datasets[jobs[0].split]
        extractor = _extractor(jobs, backbones, registry)
        _begin(jobs, emit)
        on_rows = partial(_report, emit, extractor.spent)
        if order.probe:
            found = estimate(dataset, extractor, jobs[0].options.store_dtype, on_rows)
            emit({"event": "probed", "found": dataclasses.asdict(found)})
            continue
        destinations = {job.stream.alias: _destination(job, extractor, registry) for job in jobs}
        with _all_named(extractor, datasets, jobs[0]):
            work = Work(dataset, extractor, destinations, share=order.share, on_rows=on_rows)
            manifests = work.go_on()
        if work.helps and None in manifests.values():
            unfinished.append((jobs, work))  # other processes compute the last shards: the next jobs first
        else:
            _end(manifests, extractor, emit)
    for jobs, work in unfinished:
        _begin(jobs, emit)
        with _all_named(work.extractor, datasets, jobs[0]):
            manifests = work.wait(lambda text: emit({"event": "warning", "message": text}))
        _end(manifests, work.extractor, emit)


def _begin(jobs: list[Job], emit: Emit) -> None:
    emit({"event": "begin", "streams": [job.stream.alias for job in jobs], "split": jobs[0].split})


def _end(manifests: Mapping[str, Manifest | None], extractor: FeatureExtractor, emit: Emit) -> None:
    skipped = next((list(manifest.skipped) for manifest in manifests.values() if manifest is not None), [])
    emit({"event": "end", "skipped": skipped, "spent": dataclasses.asdict(extractor.spent)})


@contextlib.contextmanager
def _all_named(extractor: FeatureExtractor, datasets: Mapping[str, Dataset], job: Job) -> Iterator[None]:
    """Name the unreadable samples of the splits that follow too, if one of this split cannot be read."""
    try:
        yield
    except BadSample as error:
        if len(extractor.problems):
            raise _of_other_splits(error, extractor, datasets, job) from error
        raise


def _of_other_splits(
    error: BadSample, extractor: FeatureExtractor, datasets: Mapping[str, Dataset], job: Job
) -> SparcError:
    """Return the error that names the unreadable samples of the splits that follow too."""
    splits = list(datasets)
    try:
        for split in splits[splits.index(job.split) + 1 :]:
            extractor.count_unreadable(datasets[split])
    except SparcError:  # the machine's, which the next extraction meets
        return error
    return extractor.bad()


def _feed(order: Order, places: Feed, registry: Registry, emit: Emit) -> None:
    """Send the features of some samples."""
    dataset = _opened(order.jobs[0], registry)
    groups = list(_together(order.jobs, registry))
    if len(groups) > 1:
        check_paired(dataset, order.jobs[0].split)
    from sparc.extraction.feeding import send

    backbones = _loaded(order.jobs, registry, emit)
    extractors = [_extractor(jobs, backbones, registry) for jobs in groups]
    send(dataset, extractors, order.jobs[0].options.store_dtype, places, emit)


def _report(emit: Emit, spent: WaitingTime, done: int, total: int) -> None:
    emit({"event": "progress", "done": done, "total": total, "spent": dataclasses.asdict(spent)})


def _loaded(jobs: list[Job], registry: Registry, emit: Emit) -> dict[str, Backbone]:
    """Load each backbone once, and so each model with several towers once."""
    from sparc.models.loading import load_backbones

    streams = {job.stream.alias: job.stream for job in jobs}
    return load_backbones(
        registry, streams, jobs[0].options.device, lambda stream: emit({"event": "load", "stream": stream})
    )


def _together(jobs: list[Job], registry: Registry) -> Iterator[list[Job]]:
    """Yield groups of jobs that read the same images or captions."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.split, registry.backbone(job.stream.name).modality), []).append(job)
    yield from groups.values()


def _opened(job: Job, registry: Registry, *, readable: bool = False) -> Dataset:
    """Open a split. readable: without what is wrong with it, if the dataset can leave that out."""
    source = registry.dataset(job.dataset.name)
    opener = (source.open_readable or source.open) if readable else source.open
    return opener(checked_params(source, job.dataset), job.split)


def _extractor(jobs: list[Job], backbones: dict[str, Backbone], registry: Registry) -> FeatureExtractor:
    from sparc.extraction.features import ComputeOptions, FeatureExtractor, dtype_of
    from sparc.plugins.images import ImageLimits

    options = jobs[0].options
    tokens = dtype_of(options.store_dtype) if options.tokens else None
    limits = ImageLimits.of(options)
    compute = ComputeOptions(options.device, options.precision, options.compile, options.skip_bad, tokens, limits)
    modality = registry.backbone(jobs[0].stream.name).modality
    return FeatureExtractor({job.stream.alias: backbones[job.stream.alias] for job in jobs}, modality, compute)


def _destination(job: Job, extractor: FeatureExtractor, registry: Registry) -> Destination:
    from sparc.extraction.shards import Destination

    spec = registry.backbone(job.stream.name)
    params = checked_params(spec, job.stream).model_dump(mode="json")
    # Shards of a stream that nothing but paths identifies must have the same bytes when its files have moved.
    moves = not job.weights and any(params.get(name) is not None for name in PATHS)
    return Destination(
        directory=job.directory,
        mark=None if moves else f"{job.split}/{job.directory.name}",
        backbone=spec.name,
        params={name: value for name, value in params.items() if name != "weights"},
        weights=job.weights,
        dataset=job.dataset.name,
        split=job.split,
        dtype=job.options.store_dtype,
        precision=job.options.precision,
        exif=job.options.exif if spec.modality == "image" else None,
        preprocessing=getattr(extractor.backbones[job.stream.alias], "preprocessing", None),
        versions=library_versions(),
    )


class _Terminated(BaseException):
    """SIGTERM, by which the parent ends this process."""


def main() -> None:
    """Read an order, carry it out, and report. An error is reported as an event too."""
    # Ctrl-C reaches the whole process group, but the parent decides and ends this process with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    me = os.getpid()

    def terminate(number: int, frame: object) -> None:
        if os.getpid() == me:
            raise _Terminated
        signal.signal(number, signal.SIG_DFL)  # a loading process inherits this handler, and just ends
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, terminate)
    keep_freed_memory()
    # Redirect standard output to standard error, so that prints of libraries don't mix with the events.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    doing = "open the dataset"

    def emit(event: dict[str, Any]) -> None:
        nonlocal doing
        if event["event"] == "load":
            doing = f"load the stream '{event['stream']}'"
        elif event["event"] == "begin":
            doing = f"extract the streams {', '.join(event['streams'])} of the split '{event['split']}'"
        events.write(json.dumps(event) + "\n")
        events.flush()

    # The parent may have warned of the same when it planned, and shows a text once.
    warnings.showwarning = lambda message, *_: emit({"event": "warning", "message": str(message)})
    try:
        try:
            run(Order.model_validate_json(sys.stdin.buffer.read()), discover(), emit)
        except BrokenPipeError:
            os._exit(1)  # the parent is gone
        except Exception as error:
            trace = traceback.format_exc()
            if (known := error if isinstance(error, SparcError) else refusal(error, doing)) is not None:
                said: dict[str, Any] = {"kind": type(known).__name__, "message": known.message, "hint": known.hint}
                said["details"] = known.details
            else:
                said = {"kind": "crash", "message": f"{type(error).__name__}: {error}".splitlines()[0]}
            emit({"event": "error", **said, "traceback": trace})
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent ends this process when it has read the last event
    except _Terminated:  # files that were begun are removed, and locks released
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
