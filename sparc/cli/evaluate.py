"""`sparc evaluate`, `sparc explore` and `sparc info`: what a run is worth, what its latents mean, what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparc.cli.options import DataRoot, Device, Features, StoreNow, jobs_of, options_of, resolve_device
from sparc.cli.progress import Bar, console
from sparc.cli.tables import evaluation_tables
from sparc.errors import InvalidConfig, MissingData

if TYPE_CHECKING:
    from sparc.checkpoint import SharedLatentSpace
    from sparc.config import RunOptions
    from sparc.evaluate import Report
    from sparc.extract import Job
    from sparc.plugins import Registry
    from sparc.run import Run

RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")]


def evaluate(
    run: RunPath,
    rule: Annotated[
        str,
        typer.Option(
            "--concepts",
            metavar="RULE",
            help="How latents get names: enrichment; or purity, the paper's rule: the label that most of their samples "
            "have, above 0.3.",
        ),
    ] = "enrichment",
    localization: Annotated[
        bool, typer.Option("--localization", help="Measure too whether maps of concepts point at the right place.")
    ] = False,
    data_root: DataRoot = None,
    features: Features = None,
    store: StoreNow = None,
    device: Device = None,
) -> None:
    """Measure a run on held-out samples: all of it, with probes and plots, which `sparc train` leaves out.

    Prints tables, and writes `evaluation.json`, plots and a table of all latents into the run.

    Examples:

        sparc evaluate runs/openmoji

        sparc evaluate runs/openmoji --concepts purity

        sparc evaluate runs/openmoji --localization
    """
    from sparc.evaluate.concepts import RULES
    from sparc.evaluate.plots import draw

    if rule not in RULES:
        raise InvalidConfig(f"--concepts: expected {' or '.join(RULES)}, found '{rule}'", hint="leave it out")
    places = {"data-root": data_root, "features": features, "store": store, "device": device}
    opened, options, registry, jobs = _open(run, places)
    resolved = resolve_device(options.device)
    space = _space(opened, resolved)
    report = evaluate_run(opened, space, options, registry, jobs, resolved, rule=rule, classifiers=True)
    draw(report, opened.pictures)
    console.print(f"\nplots and a table of all latents: {opened.pictures}", markup=False, soft_wrap=True)
    if localization:
        _localize(opened, options, registry, jobs, resolved)


def evaluate_run(
    run: Run,
    space: SharedLatentSpace,
    options: RunOptions,
    registry: Registry,
    jobs: dict[str, Job],
    device: str,
    *,
    rule: str = "enrichment",
    classifiers: bool = False,
) -> Report:
    """Measure `space` on the held-out split, write what was found into the run, and print the tables."""
    from sparc.measure import held_out, measure, samples_of

    features, dataset = held_out(options, registry, jobs)
    samples = samples_of(features, dataset, registry, jobs, device)
    with Bar("evaluate", "parts") as bar:
        found = measure(
            run, space, samples, features, rule=rule, classifiers=classifiers, seed=options.seed, on_part=bar.update
        )
    where = next(iter(features.manifests.values()))
    _print(found.report, where.dataset, where.split, features.random_weights, everything=classifiers)
    return found.report


def _localize(run: Run, options: RunOptions, registry: Registry, jobs: dict[str, Job], device: str) -> None:
    """Measure how well maps point, write what was found into the run, and print the table."""
    from sparc.attribute import load_models
    from sparc.cli.localization_table import localization_table
    from sparc.files import write_json
    from sparc.localization import cases_of, measure_localization
    from sparc.memory import keep_freed_memory
    from sparc.plugins import checked_params

    keep_freed_memory()
    job = next(iter(jobs.values()))
    spec = registry.dataset(job.dataset.name)
    cases = cases_of(spec.open(checked_params(spec, job.dataset), job.split), seed=options.seed)
    models = load_models(run.path, device=device)
    with Bar("localize", "images") as bar:
        report = measure_localization(models, cases, seed=options.seed, on_case=bar.update)
    write_json(run.localization, {"dataset": spec.name, "split": job.split, "report": report.model_dump(mode="json")})
    console.print()
    console.print(localization_table(report, title=f"{spec.name} {job.split}"))


def explore(
    run: RunPath,
    latent: Annotated[
        int | None, typer.Option("--latent", help="One latent; without it, the most telling ones.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Picture to write. Without it: latents.png in the run.")
    ] = None,
    data_root: DataRoot = None,
    store: StoreNow = None,
    device: Device = None,
) -> None:
    """Draw what latents mean: for each stream alone, the held-out samples that activate them most.

    Examples:

        sparc explore runs/openmoji

        sparc explore runs/openmoji --latent 93 --out latent-93.png
    """

    from sparc.explore import meanings, picture
    from sparc.measure import held_out

    opened, options, registry, jobs = _open(run, {"data-root": data_root, "store": store, "device": device})
    if options.features is not None:
        raise MissingData(
            "its features were imported, so there is no image and no caption to show", hint="see its table: sparc info"
        )
    resolved = resolve_device(options.device)
    space = _space(opened, resolved)
    features, dataset = held_out(options, registry, jobs)
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
    said = provenance["options"]
    settings = ("lambda", "epochs", "batch-size", "lr", "normalization", "seed")
    console.print(f"training: {', '.join(f'{name} {said[name]}' for name in settings)}", markup=False)
    console.print(
        f"started {provenance['started']} by: {' '.join(provenance['command'])}", markup=False, soft_wrap=True
    )
    if opened.evaluation.is_file():
        content = read_json(opened.evaluation, what="the evaluation of a run")
        report = Report.from_json(content["report"])
        everything = bool(report.probes and report.probes.classifiers)
        _print(report, content["dataset"], content["split"], content["random_weights"], everything=everything)


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

    if not run.finished:
        raise MissingData(f"the run {run.path} is not finished", hint=f"sparc train --resume {run.path}")
    return load(run.path, device=device)


def _print(report: Report, dataset: str, split: str, random_weights: list[str], *, everything: bool) -> None:
    caption = _warning(random_weights) if random_weights else ""
    console.print()
    for table in evaluation_tables(report, title=f"{dataset} {split}", caption=caption, everything=everything):
        console.print(table)


def _warning(random_weights: list[str]) -> str:
    return f"{', '.join(random_weights)}: random weights (dry run), so this says nothing about the models."
