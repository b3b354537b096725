"""The process that extracts: jobs come as JSON on standard input, events go as JSON lines to standard output.

A process of its own: the memory of a backbone and of its batches ends with it, and no process of the user's has its
allocator changed.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from sparc.errors import SparcError
from sparc.extract.plan import Job, checked_params
from sparc.memory import keep_freed_memory
from sparc.plugins import Registry, discover
from sparc.provenance import library_versions

Emit = Callable[[dict[str, Any]], None]


def run(jobs: Iterable[Job], registry: Registry, emit: Emit) -> None:
    """Do the jobs, loading each backbone once for all its splits. Raises SparcError."""
    from sparc.extract.stream import Origin, extract_stream

    for stream, group in itertools.groupby(jobs, key=lambda job: job.stream):
        spec = registry.backbone(stream.name)
        params = checked_params(spec, stream)
        todo = list(group)
        emit({"event": "load", "stream": stream.alias})
        backbone = spec.load(params, todo[0].device, "float32")
        for job in todo:
            source = registry.dataset(job.dataset.name)
            dataset = source.open(checked_params(source, job.dataset), job.split)
            emit({"event": "begin", "stream": stream.alias, "split": job.split, "total": len(dataset)})
            origin = Origin(
                backbone=spec.name,
                modality=spec.modality,
                params=params.model_dump(mode="json", exclude={"weights"}),
                weights=job.weights,
                dataset=source.name,
                split=job.split,
                versions=library_versions(),
            )
            manifest = extract_stream(
                dataset,
                backbone,
                job.directory,
                origin,
                device=job.device,
                skip_bad=job.skip_bad,
                report=lambda done: emit({"event": "progress", "done": done}),
            )
            emit({"event": "end", "skipped": list(manifest.skipped)})


def main() -> None:
    """Read jobs, do them, report; the error of a failed job is an event too."""
    # Ctrl-C reaches the whole process group; the parent decides, and ends this process with SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_memory()
    # Libraries print what they like: it must not mix with the events.
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    try:
        run([Job.model_validate(job) for job in json.load(sys.stdin)], discover(), emit)
    except BrokenPipeError:
        os._exit(1)  # The parent is gone, so nobody waits for what is left to do.
    except SparcError as error:
        emit({"event": "error", "kind": type(error).__name__, "message": error.message, "hint": error.hint})
    except Exception as error:
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        emit({"event": "error", "kind": "crash", "message": message, "traceback": traceback.format_exc()})


if __name__ == "__main__":
    main()
