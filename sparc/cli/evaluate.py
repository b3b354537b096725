"""`sparc evaluate`, `sparc explore` and `sparc info`: what a run is worth, what its latents mean, what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparc.cli.options import DataRoot, Device, Features, Store, dataset_ref, jobs_of, options_of, resolve_device
from sparc.cli.progress import console
from sparc.cli.tables import evaluation_tables
from sparc.errors import MissingData

if TYPE_CHECKING:
    from sparc.checkpoint import SharedLatentSpace
    from sparc.config import RunOptions
    from sparc.contracts import Dataset
    from sparc.evaluate import Report
    from sparc.extract import Job
    from sparc.plugins import Registry
    from sparc.run import Run
    from sparc.store import FeatureStore

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")]


def evaluate(
    run: RunPath,
    data_root: DataRoot = None,
    features: Features = None,
    store: Store = None,
    device: Device = None,
) -> None:
    """Measure a run on held-out samples again, and print the table.

    Example:

        sparc evaluate runs/openmoji
    """
    opened, options, registry, jobs = _open(
        run, {"data-root": data_root, "features": features, "store": store, "device": device}
    )
    resolved = resolve_device(options.device)
    space = _space(opened, resolved)
    evaluate_run(opened, space, options, registry, jobs, resolved)


def evaluate_run(
    run: Run, space: SharedLatentSpace, options: RunOptions, registry: Registry, jobs: dict[str, Job], device: str
) -> None:
    """Measure `space` on the held-out split, write `evaluation.json` and print the table."""
    from sparc.evaluate import evaluate as measure
    from sparc.files import write_json

    features, dataset = _held_out(options, registry, jobs)
    report = measure(
        space,
        {name: rows.to(device) for name, rows in features.features.items()},
        labels=dataset.labels(),
        taxonomy=dataset.taxonomy,
        groups=dataset.groups,
        seed=options.seed,
    )
    where = next(iter(features.manifests.values()))
    content = {
        "dataset": where.dataset,
        "split": where.split,
        "random_weights": features.random_weights,
        "report": report.to_json(),
    }
    write_json(run.evaluation, content)
    _print(report, where.dataset, where.split, features.random_weights)


def explore(
    run: RunPath,
    latent: Annotated[
        int | None, typer.Option("--latent", help="One latent; without it, the most telling ones.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Picture to write. Without it: latents.png in the run.")
    ] = None,
    data_root: DataRoot = None,
    store: Store = None,
    device: Device = None,
) -> None:
    """Draw what latents mean: for each stream alone, the held-out samples that activate them most.

    Examples:

        sparc explore runs/openmoji

        sparc explore runs/openmoji --latent 93 --out latent-93.png
    """

    from sparc.explore import meanings, picture

    opened, options, registry, jobs = _open(run, {"data-root": data_root, "store": store, "device": device})
    if options.features is not None:
        raise MissingData(
            "its features were imported, so there is no image and no caption to show", hint="see its table: sparc info"
        )
    resolved = resolve_device(options.device)
    space = _space(opened, resolved)
    features, dataset = _held_out(options, registry, jobs)
    raw = {name: rows.to(resolved) for name, rows in features.features.items()}
    found = meanings(space, raw, dataset.labels(), dataset.taxonomy, latent=latent)
    if not found:
        raise MissingData("no latent is active often enough in every stream", hint="train longer, or choose --latent")
    default = "latents.png" if latent is None else f"latent-{latent}.png"
    path = out if out is not None else opened.path / default
    where = next(iter(jobs.values()))
    dry = f"  {_warning(features.random_weights)}" if features.random_weights else ""
    picture(
        found,
        lambda row: dataset[row],
        {name: registry.backbone(job.stream.name).modality for name, job in jobs.items()},
        path,
        title="One latent, every stream" if latent is not None else "What the latents mean",
        subtitle=f"Held-out samples of {where.dataset.name} ({where.split}), each stream encoded alone.{dry}",
    )
    console.print(str(path), markup=False, soft_wrap=True)


def info(run: RunPath) -> None:
    """Show what a run is: streams, settings, data, and the table of its evaluation.

    Example:

        sparc info runs/openmoji
    """
    from sparc.checkpoint import read_config
    from sparc.evaluate import Report
    from sparc.files import read_json
    from sparc.run import Run

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
    console.print(
        f"started {provenance['started']} by: {' '.join(provenance['command'])}", markup=False, soft_wrap=True
    )
    if opened.evaluation.is_file():
        content = read_json(opened.evaluation, what="the evaluation of a run")
        report = Report.from_json(content["report"])
        _print(report, content["dataset"], content["split"], content["random_weights"])


def _open(path: Path, places: Mapping[str, Any]) -> tuple[Run, RunOptions, Registry, dict[str, Job]]:
    """A run, its options with what has moved since, and the jobs of its held-out split."""
    from sparc.plugins import discover
    from sparc.run import Run

    run = Run.open(path)
    options = options_of(run, places)
    registry = discover()
    return run, options, registry, list(jobs_of(options, registry, "cpu").values())[-1]


def _space(run: Run, device: str) -> SharedLatentSpace:
    from sparc.checkpoint import load

    return load(run.path, device=device)


def _held_out(options: RunOptions, registry: Registry, jobs: dict[str, Job]) -> tuple[FeatureStore, Dataset]:
    """Features and dataset of the held-out split. Raises MisalignedStreams where they hold other samples."""
    from sparc.errors import MisalignedStreams
    from sparc.extract import directories
    from sparc.extract.plan import checked_params
    from sparc.importing import ImportedSamples
    from sparc.store import open_streams

    lacking = [name for name, job in jobs.items() if not job.done]
    if lacking:
        raise MissingData(
            f"the store has no held-out features of {', '.join(lacking)}",
            hint="extract them, sparc extract as trained; or say where they are now: --store",
        )
    features = open_streams(directories(jobs))
    if options.features is not None:
        return features, ImportedSamples(features.ids)
    spec = registry.dataset(options.dataset.name)
    split = next(iter(jobs.values())).split
    dataset = spec.open(checked_params(spec, dataset_ref(options)), split)
    if tuple(dataset.ids) != features.ids:
        raise MisalignedStreams(
            f"the dataset '{spec.name}' holds other samples now than when its features were extracted",
            hint="bring the old samples back, or train anew",
        )
    return features, dataset


def _print(report: Report, dataset: str, split: str, random_weights: list[str]) -> None:
    caption = _warning(random_weights) if random_weights else ""
    console.print()
    for table in evaluation_tables(report, title=f"{dataset} {split}", caption=caption):
        console.print(table)


def _warning(random_weights: list[str]) -> str:
    return f"{', '.join(random_weights)}: random weights (dry run), so this says nothing about the models."
