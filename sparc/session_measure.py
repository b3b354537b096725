"""Measures a run on its held-out samples: brings together what was extracted, its dataset and the verb `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sparc.config import RunConfig
from sparc.errors import MisalignedStreams, MissingData
from sparc.extraction import Job, directories
from sparc.extraction.plan import IMPORTED
from sparc.plugins.registry import Registry, checked_params, shared_spaces
from sparc.storage.run import Run

if TYPE_CHECKING:
    from sparc.core.space import LatentSpace
    from sparc.evaluation import Evaluation, HeldOut, OnPart
    from sparc.plugins.contracts import Dataset
    from sparc.storage.store import FeatureStore


def held_out(options: RunConfig, registry: Registry, jobs: Mapping[str, Job]) -> tuple[FeatureStore, Dataset]:
    """Open features and dataset of the held-out split.

    Raises:
        MissingData: the store lacks them.
        MisalignedStreams: they hold different samples.
    """
    from sparc.interchange import ImportedSamples
    from sparc.storage.store import open_streams

    lacking = [name for name, job in jobs.items() if not job.done]
    if lacking:
        raise MissingData(
            f"the store has no held-out features of {', '.join(lacking)}",
            hint="extract them, sparc extract as trained; or say where they are now: --store",
        )
    features = open_streams(directories(jobs))
    if options.features is not None:
        return features, ImportedSamples(features.ids)
    job = next(iter(jobs.values()))
    spec = registry.dataset(job.dataset.name)
    dataset = spec.open(checked_params(spec, job.dataset), job.split)
    if tuple(dataset.ids) != features.ids:
        raise MisalignedStreams(
            f"the dataset '{spec.name}' holds other samples now than when its features were extracted",
            hint="bring the old samples back, or train anew",
        )
    return features, dataset


def samples_of(
    features: FeatureStore, dataset: Dataset, registry: Registry, jobs: Mapping[str, Job], device: str
) -> HeldOut:
    """Lay out held-out samples for the verb `evaluate`, features on a device."""
    from sparc.evaluation import HeldOut

    # What an imported stream is called says nothing of where its features come from.
    streams = {name: job.stream for name, job in jobs.items() if job.dataset.name != IMPORTED}
    return HeldOut(
        features={name: rows.to(device) for name, rows in features.features.items()},
        groups=dataset.groups,
        labels=dataset.labels(),
        taxonomy=dataset.taxonomy,
        rows=features.rows,
        shared_spaces=shared_spaces(registry, streams),
    )


def measure(
    run: Run,
    space: LatentSpace,
    samples: HeldOut,
    features: FeatureStore,
    *,
    rule: str = "enrichment",
    classifiers: bool = False,
    seed: int = 0,
    on_part: OnPart = lambda done, total, part: None,
) -> Evaluation:
    """Measure `space`, and write `evaluation.json` and the table of latents into the run. Raises StorageError."""
    from sparc.evaluation import evaluate
    from sparc.evaluation.report import EvaluationFile
    from sparc.storage.latent_names import LATENTS
    from sparc.system.files import storage_error

    try:
        run.pictures.mkdir(exist_ok=True)  # before the work, not after it
    except OSError as error:
        raise storage_error(run.pictures, error) or error from error
    found = evaluate(space, samples, rule=rule, classifiers=classifiers, seed=seed, on_part=on_part)
    where = next(iter(features.manifests.values()))
    found.latents.write(run.pictures / LATENTS)
    EvaluationFile(
        dataset=where.dataset, split=where.split, random_weights=tuple(features.random_weights), report=found.report
    ).write(run.evaluation)
    return found
