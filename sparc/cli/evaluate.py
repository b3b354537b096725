"""`sparc evaluate`: what a run is worth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from sparc.cli.options import DataRoot, Device, Features, StoreNow
from sparc.cli.progress import Bar, console
from sparc.cli.runs import RunPath, dry_warning, open_run, print_report, space_of
from sparc.errors import InvalidConfig
from sparc.session_options import resolve_device

if TYPE_CHECKING:
    from sparc.config import RunConfig
    from sparc.evaluation import Report
    from sparc.extraction import Job
    from sparc.localization import Models
    from sparc.localization.benchmark import Cases, LatentsReport, LocalizationReport
    from sparc.plugins.registry import Registry
    from sparc.storage.checkpoint import SharedLatentSpace
    from sparc.storage.run import Run


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
    from sparc.evaluation.concepts import RULES
    from sparc.evaluation.plots import draw
    from sparc.system.memory import keep_freed_memory

    if rule not in RULES:
        raise InvalidConfig(f"--concepts: expected {' or '.join(RULES)}, found '{rule}'", hint="leave it out")
    places = {"data-root": data_root, "features": features, "store": store, "device": device}
    opened, options, registry, jobs = open_run(run, places)
    resolved = resolve_device(options.device)
    space = space_of(opened, resolved)
    if localization:  # what cannot be measured is said before the work
        keep_freed_memory()
        models, cases = _to_localize(opened, options, registry, jobs, resolved)
    report = evaluate_run(opened, space, options, registry, jobs, resolved, rule=rule, classifiers=True)
    draw(report, opened.pictures)
    console.print(f"\nplots and a table of all latents: {opened.pictures}", markup=False, soft_wrap=True)
    if localization:
        _localize(opened, models, cases, next(iter(jobs.values())), options.seed)


def evaluate_run(
    run: Run,
    space: SharedLatentSpace,
    options: RunConfig,
    registry: Registry,
    jobs: dict[str, Job],
    device: str,
    *,
    rule: str = "enrichment",
    classifiers: bool = False,
) -> Report:
    """Measure `space` on the held-out split, write what was found into the run, and print the tables."""
    from sparc.session_measure import held_out, measure, samples_of

    features, dataset = held_out(options, registry, jobs)
    samples = samples_of(features, dataset, registry, jobs, device)
    with Bar("evaluate", "parts") as bar:
        found = measure(
            run, space, samples, features, rule=rule, classifiers=classifiers, seed=options.seed, on_part=bar.update
        )
    where = next(iter(features.manifests.values()))
    print_report(found.report, where.dataset, where.split, features.random_weights, everything=classifiers)
    return found.report


def _to_localize(
    run: Run, options: RunConfig, registry: Registry, jobs: dict[str, Job], device: str
) -> tuple[Models, Cases]:
    """The run's backbones, and images to point at things in."""
    from sparc.localization import load_models
    from sparc.localization.benchmark import cases_of
    from sparc.plugins.registry import checked_params

    models = load_models(run.path, device=device)
    models.with_grid()
    job = next(iter(jobs.values()))
    spec = registry.dataset(job.dataset.name)
    return models, cases_of(spec.open(checked_params(spec, job.dataset), job.split), seed=options.seed)


def _localize(run: Run, models: Models, cases: Cases, job: Job, seed: int) -> None:
    """Measure how well maps point, write what was found into the run, and print the tables."""
    from sparc.cli.localization_table import latents_table, localization_table
    from sparc.localization.benchmark import chimeras_of, measure_latents, measure_localization
    from sparc.localization.models import latent_names
    from sparc.system.files import write_json

    named = replace(models, names=latent_names(run))
    with Bar("localize", "images") as bar:
        report = measure_localization(named, cases, seed=seed, on_case=bar.update)
    parts: LocalizationReport | None = None
    latents: tuple[LatentsReport, ...] = ()
    if cases.draw is not None:
        with Bar("parts", "images") as bar:
            chimeras = chimeras_of(cases.dataset, seed=seed)
            parts = measure_localization(named, chimeras, perturb=0, seed=seed, on_case=bar.update)
        with Bar("latents", "images") as bar:
            latents = measure_latents(named, cases, seed=seed, on_case=bar.update)
    where, dry = {"dataset": job.dataset.name, "split": job.split}, list(models.random_weights)
    written = {
        "report": report.model_dump(mode="json"),
        "parts": None if parts is None else parts.model_dump(mode="json"),
        "latents": [one.model_dump(mode="json") for one in latents],
    }
    write_json(run.localization, {**where, "random_weights": dry, **written})
    title, caption = " ".join(where.values()), dry_warning(dry) if dry else ""
    for one in (report, parts):
        if one is not None:
            console.print()
            console.print(localization_table(one, title=title, caption=caption))
    if latents:
        console.print()
        console.print(latents_table(latents))
