"""`sparc evaluate`: what a run is worth."""

from __future__ import annotations

from contextlib import ExitStack
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
    from sparc.localization.benchmark import Cases
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
        models, cases = _to_localize(opened, space, options, registry, jobs)
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
    run: Run, space: SharedLatentSpace, options: RunConfig, registry: Registry, jobs: dict[str, Job]
) -> tuple[Models, Cases]:
    """Load the run's backbones, and prepare images to point at things in."""
    from sparc.localization import load_models
    from sparc.localization.benchmark import cases_of
    from sparc.plugins.registry import checked_params

    device = resolve_device(options.device)
    models = load_models(run, device=device, space=space, registry=registry)
    models.with_grid()
    job = next(iter(jobs.values()))
    spec = registry.dataset(job.dataset.name)
    return models, cases_of(spec.open(checked_params(spec, job.dataset), job.split), seed=options.seed)


def _localize(run: Run, models: Models, cases: Cases, job: Job, seed: int) -> None:
    """Measure how well maps point, write the result into the run, and print the tables."""
    from sparc.cli.localization_table import latents_table, localization_table
    from sparc.localization.benchmark import measure_all
    from sparc.localization.models import latent_names

    named = replace(models, names=latent_names(run))
    with _Bars() as bars:
        found = measure_all(named, cases, dataset=job.dataset.name, split=job.split, seed=seed, on_case=bars.update)
    found.write(run.localization)
    dry = list(found.random_weights)
    title, caption = f"{found.dataset} {found.split}", dry_warning(dry) if dry else ""
    for one in (found.report, found.parts):
        if one is not None:
            console.print()
            console.print(localization_table(one, title=title, caption=caption))
    if found.latents:
        console.print()
        console.print(latents_table(found.latents))


class _Bars(ExitStack):
    """One bar after the other, for the parts of a measurement."""

    part, bar = "", None

    def update(self, part: str, done: int, total: int) -> None:
        """Show the progress of a part, in a bar of its own."""
        if part != self.part or self.bar is None:
            self.close()
            self.part, self.bar = part, self.enter_context(Bar(part, "images"))
        self.bar.update(done, total)
