"""`sparc info`: what a run is."""

from __future__ import annotations

from sparc.cli.progress import console
from sparc.cli.runs import RunPath, print_report


def info(run: RunPath) -> None:
    """Show what a run is: streams, settings, data, and the table of its evaluation.

    Example:

        sparc info runs/openmoji
    """
    from sparc.evaluation.report import EvaluationFile
    from sparc.storage.checkpoint import read_config
    from sparc.storage.run import Run

    opened = Run.open(run)
    provenance = opened.provenance()
    for name, stream in provenance["streams"].items():
        params = ", ".join(f"{key}={value}" for key, value in stream["params"].items() if value is not None)
        weights = f"  weights {stream['weights']}" if stream["weights"] else ""
        console.print(f"stream {name}: {stream['backbone']}[{params}]{weights}", markup=False, soft_wrap=True)
    if not opened.finished:
        console.print(f"not finished; go on with: sparc train --resume {run}", markup=False)
        return
    space = read_config(opened.path)
    console.print(f"space: {space.n_latents} latents, {space.k} kept, {space.selection} selection", markup=False)
    said = provenance["options"]
    settings = ("lambda", "epochs", "batch-size", "lr", "normalization", "seed")
    console.print(f"training: {', '.join(f'{name} {said[name]}' for name in settings)}", markup=False)
    console.print(
        f"started {provenance['started']} by: {' '.join(provenance['command'])}", markup=False, soft_wrap=True
    )
    if opened.evaluation.is_file():
        file = EvaluationFile.read(opened.evaluation)
        everything = bool(file.report.probes and file.report.probes.classifiers)
        print_report(file.report, file.dataset, file.split, file.random_weights, everything=everything)
