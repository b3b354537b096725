"""`sparc info`: what a run is."""

from __future__ import annotations

from sparc.cli.progress import console
from sparc.cli.runs import RunPath, print_report


def info(run: RunPath) -> None:
    """Show what a run is: streams, settings, data, and the table of its evaluation.

    Example:

        sparc info runs/openmoji
    """
    from sparc.evaluation import Report
    from sparc.storage.run import Run
    from sparc.storage.space_config import read_config
    from sparc.system.files import read_json

    opened = Run.open(run)
    provenance = opened.provenance()
    for name, stream in provenance.streams.items():
        params = ", ".join(f"{key}={value}" for key, value in stream.params.items() if value is not None)
        weights = f"  weights {stream.weights}" if stream.weights else ""
        console.print(f"stream {name}: {stream.backbone}[{params}]{weights}", markup=False, soft_wrap=True)
    if not opened.finished:
        console.print(f"not finished; go on with: sparc train --resume {run}", markup=False)
        return
    space = read_config(opened.path)
    console.print(f"space: {space.n_latents} latents, {space.k} kept, {space.selection} selection", markup=False)
    said = provenance.options.model_dump(mode="json", by_alias=True)
    settings = ("lambda", "epochs", "batch-size", "lr", "normalization", "seed")
    console.print(f"training: {', '.join(f'{name} {said[name]}' for name in settings)}", markup=False)
    console.print(f"started {provenance.started} by: {' '.join(provenance.command)}", markup=False, soft_wrap=True)
    if opened.evaluation.is_file():
        content = read_json(opened.evaluation, what="the evaluation of a run")
        report = Report.from_json(content["report"])
        everything = bool(report.probes and report.probes.classifiers)
        print_report(report, content["dataset"], content["split"], content["random_weights"], everything=everything)
