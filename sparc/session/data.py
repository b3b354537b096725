"""Features and samples of a configuration: extract them into the store, open and check them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparc.config import ExtractionOptions, RunConfig, is_url
from sparc.errors import InvalidConfig, MisalignedStreams, MissingData, Problems, counted
from sparc.extraction import (
    IMPORTED,
    SPLITS,
    WHOLE,
    Job,
    JobOptions,
    Progress,
    Share,
    directories,
    extract,
    imported,
    plan,
    probe,
)
from sparc.plugins.images import ImageLimits, limit_images
from sparc.plugins.problems import find_problems
from sparc.plugins.registry import Registry, checked_params, shared_spaces
from sparc.session.listener import SILENT, Listener
from sparc.session.options import store_root
from sparc.storage.mirror import fetch_imported, fetch_stream
from sparc.system.devices import devices, no_device
from sparc.system.remote import below, shown

if TYPE_CHECKING:
    from sparc.evaluation import HeldOut
    from sparc.plugins.contracts import Dataset
    from sparc.storage.store import FeatureStore

ALIKE = 0.9
"""Warn if a stream's samples share more than this part of their squared norm. The demo's streams share 0.1 to 0.4."""
SOME = 3
"""Number of problems that a warning names."""
LOOKED_AT = 4096
"""Number of samples from which `common` computes."""


class Data:
    """Features and samples of a configuration; `extract` puts into the store what it lacks.

    The constructor checks everything that needs no torch: plugins, parameters, weights files, the dataset's folder.
    """

    def __init__(
        self,
        config: RunConfig,
        registry: Registry,
        *,
        jobs: dict[str, dict[str, Job]] | None = None,
        tokens: bool = False,
        listener: Listener = SILENT,
    ) -> None:
        """Plan the jobs of both splits, unless they are given. Raises the SparcError of `extraction.plan`."""
        self.config = config
        self.registry = registry
        self.listener = listener
        if jobs is None:
            listener.doing("identifying the data and the weights")  # reads whole files: captions, local weights
            jobs = jobs_of(config, registry, tokens=tokens)
        self.jobs = jobs
        """Jobs by split, then by stream; the training split comes first."""

    @cached_property
    def device(self) -> str:
        """Device to compute on. Raises InvalidConfig."""
        return resolve_device(_device_of_rank(self.config.device, self.listener), self.listener)

    def extract(self, share: Share = WHOLE) -> None:
        """Extract the features that the store lacks, in a separate process. Raises the SparcError of that process."""
        every = self.stored
        self._refuse_remote(every)
        self.check_samples()
        there = sum(job.done for job in every)
        if there:
            self.listener.note(f"features: {there} of {len(every)} are in the store")
        extract(self.on_device(every), self._extracting, share=share)

    def _refuse_remote(self, jobs: Sequence[Job]) -> None:
        """Raise MissingData if a store behind a URL lacks features, since nothing can be written there."""
        lacking = [f"{job.stream.alias} ({job.split})" for job in jobs if not job.done]
        if lacking and is_url(self.config.store):
            raise MissingData(
                f"the store at {shown(str(self.config.store))} has no complete features of {', '.join(lacking)}",
                hint="extract them into a folder, --store FOLDER, and copy that there",
            )

    @property
    def stored(self) -> list[Job]:
        """Jobs whose features the store must have: all but the training split's, if those are computed on the fly."""
        splits = list(self.jobs.values())[1:] if self.config.on_the_fly else self.jobs.values()
        return [job for streams in splits for job in streams.values()]

    @property
    def extracted(self) -> bool:
        """True if the store has all features."""
        return all(job.done for streams in self.jobs.values() for job in streams.values())

    def check_samples(self) -> None:
        """Raise the first of the problems, with the others as its details; warn of samples that are to be skipped."""
        problems = self.problems()
        grave = problems.grave if self.config.skip_bad else problems
        if grave:
            raise grave.joined()
        if problems:
            some = "; ".join(one.message for one in problems.first[:SOME]) + ("; ..." if len(problems) > SOME else "")
            number = counted(len(problems), "sample")
            self.listener.warn(f"{number} cannot be read whole, and used without what cannot be read: {some}")

    def problems(self) -> Problems:
        """Return what the extraction of missing features would stop at, as far as the dataset tells before."""
        every = [job for streams in self.jobs.values() for job in streams.values()]
        waiting = {job.stream.name: job.dataset for job in every if not job.done and job.dataset.name != IMPORTED}
        if not waiting:
            return Problems()
        dataset = next(iter(waiting.values()))
        spec = self.registry.dataset(dataset.name)
        modalities = {self.registry.backbone(name).modality for name in waiting}
        limit_images(ImageLimits.of(self.config))
        if "image" in modalities:
            self.listener.doing("checking the headers of the images")
        return find_problems(spec, checked_params(spec, dataset), modalities)

    def probe(
        self, on_progress: Callable[[Progress], None] = lambda progress: None
    ) -> list[tuple[Progress, dict[str, Any]]]:
        """Extract a few of the samples that the store lacks, and return the estimated cost of all of them."""
        every = [job for streams in self.jobs.values() for job in streams.values()]

        def note(progress: Progress) -> None:
            on_progress(progress)
            self._extracting(progress)

        return probe(self.on_device(every), note)

    def on_device(self, jobs: Sequence[Job]) -> list[Job]:
        """Return jobs that compute on the device of this configuration. Raises InvalidConfig."""
        update = {"device": self.device}
        return [job.model_copy(update={"options": job.options.model_copy(update=update)}) for job in jobs]

    def _extracting(self, progress: Progress) -> None:
        if progress.loading:
            self.listener.loading(", ".join(progress.streams))
        else:
            self.listener.extracting(progress)

    @cached_property
    def train(self) -> FeatureStore:
        """Training features. Raises MissingData, MisalignedStreams."""
        return self._opened(next(iter(self.jobs.values())))

    @cached_property
    def test(self) -> FeatureStore:
        """Held-out features. Raises MissingData, MisalignedStreams."""
        jobs = self.held_out_jobs
        lacking = [name for name, job in jobs.items() if not job.done]
        if lacking:
            raise MissingData(
                f"the store has no held-out features of {', '.join(lacking)}",
                hint="run sparc extract with the options of the run; or give the store that has them: --store",
            )
        return self._opened(jobs)

    @property
    def held_out_jobs(self) -> dict[str, Job]:
        """Jobs of the held-out split, by stream."""
        return list(self.jobs.values())[-1]

    def _opened(self, jobs: Mapping[str, Job]) -> FeatureStore:
        from sparc.storage.store import open_streams

        return open_streams(directories(jobs))

    @cached_property
    def dataset(self) -> Dataset:
        """Held-out samples. Raises MisalignedStreams if they differ from the extracted ones."""
        from sparc.interchange.sample_labels import ImportedSamples

        if self.config.features is not None:
            return ImportedSamples(self.test.ids, next(iter(self.held_out_jobs.values())).directory.parent)
        dataset = self._opened_split(self.held_out_jobs)
        if tuple(dataset.ids) != self.test.ids:
            raise MisalignedStreams(
                f"the samples of dataset '{self.config.source.name}' have changed since its features were extracted",
                hint="restore the old samples, or train a new run",
            )
        return dataset

    @cached_property
    def training_samples(self) -> Dataset:
        """Training samples, whose features are computed on the fly. Raises the SparcError of the dataset."""
        return self._opened_split(next(iter(self.jobs.values())))

    def _opened_split(self, jobs: Mapping[str, Job]) -> Dataset:
        job = next(iter(jobs.values()))
        spec = self.registry.dataset(job.dataset.name)
        return spec.open(checked_params(spec, job.dataset), job.split)

    @cached_property
    def held_out(self) -> HeldOut:
        """Held-out samples for `evaluation`, with features on the device."""
        from sparc.evaluation import HeldOut

        # The name of an imported stream says nothing about its backbone.
        streams = {name: job.stream for name, job in self.held_out_jobs.items() if job.dataset.name != IMPORTED}
        return HeldOut(
            features={name: rows.to(self.device) for name, rows in self.test.in_memory().items()},
            groups=self.dataset.groups,
            labels=self.dataset.labels(),
            captions=Captions(self.dataset),
            taxonomy=self.dataset.taxonomy,
            rows=self.test.rows,
            shared_spaces=shared_spaces(self.registry, streams),
        )

    def check(self, normalizations: Sequence[str] = ()) -> None:
        """Warn about samples that lack a stream, and about streams whose samples are nearly equal.

        `normalizations` are the ones to train with, by default that of the configuration. Raises MissingData if no
        sample has a stream.
        """
        for name, count in missing(self.train).items():
            if count:
                self.listener.warn(f"{count} of {len(self.train)} samples lack the stream {name}")
        if "unit" in (normalizations or [self.config.normalization]):
            for name, share in common(self.train).items():
                if share > ALIKE:
                    self.listener.warn(
                        f"{name}: {share:.0%} of the features' squared norm is the same for all samples; "
                        "--normalization standard removes it"
                    )


class Captions:
    """Captions of a dataset, read one by one."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[str | None]:
        return (self._dataset[number].caption for number in range(len(self._dataset)))


def jobs_of(
    config: RunConfig,
    registry: Registry,
    *,
    tokens: bool = False,
    recorded: Mapping[str, str] | None = None,
    held_out: bool = False,
) -> dict[str, dict[str, Job]]:
    """Return the jobs of a configuration: of all splits, or of the held-out one alone. recorded: as in `plan`.

    Raises the SparcError of `plan` and `imported`.
    """
    own = {name: getattr(config, name) for name in ExtractionOptions.model_fields}
    options = JobOptions(device=config.device, tokens=tokens, **own)
    if config.features is not None:
        splits = ("test",) if held_out else SPLITS
        root = Path(config.features)
        if is_url(config.features):
            from sparc.interchange.sample_labels import LABELS

            root = fetch_imported(str(config.features), [one.name for one in config.streams], splits, (LABELS,))
        return imported(root, config.streams, options, splits=splits)
    known = recorded or {}
    jobs = plan(registry, config.source, config.streams, root=store_root(config), options=options, recorded=known)
    if is_url(config.store):
        fetched = list(jobs.values())[-1:] if held_out else list(jobs.values())[int(config.on_the_fly) :]
        for job in (job for streams in fetched for job in streams.values()):
            fetch_stream(below(str(config.store), "/".join(job.directory.parts[-3:])), job.directory)
    return dict(list(jobs.items())[-1:]) if held_out else jobs


def _device_of_rank(device: str, listener: Listener) -> str:
    """Give each of the processes that torchrun started on a machine its own GPU."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or os.environ.get("WORLD_SIZE") == "1" or device not in ("auto", "cuda"):
        return device
    return f"cuda:{local}" if device == "cuda" or resolve_device("auto", listener) == "cuda" else device


def missing(features: FeatureStore) -> dict[str, int]:
    """Count the samples that lack each stream. Raises MissingData if all samples lack one, or if none has two."""
    import torch

    there = features.presence()
    found = {name: len(features) - int(mask.sum()) for name, mask in there.items()}
    for name, count in found.items():
        if count == len(features):
            raise MissingData(
                f"no sample has the stream '{name}': all its features are zero", hint="check its backbone"
            )
    if len(there) > 1 and not (torch.stack(list(there.values())).sum(dim=0) > 1).any():
        counts = ", ".join(f"{name} {int(mask.sum())}" for name, mask in there.items())
        raise MissingData(
            f"none of {len(features)} samples has two streams, so no stream can be rebuilt from another: {counts}",
            hint="give the streams of a sample one id, and images and captions one name",
        )
    return found


def common(features: FeatureStore) -> dict[str, float]:
    """Return how much the samples of each stream have in common: the squared norm of the mean unit vector, 0 to 1.

    Near 1, the samples are nearly equal for a space with `unit` normalisation. Uses about LOOKED_AT samples.
    """
    import torch
    import torch.nn.functional as F

    from sparc.core.space import present

    found = {}
    for name, shards in features.shards.items():
        step = max(1, sum(map(len, shards)) // LOOKED_AT)
        some_ND = torch.cat([rows[::step].float() for rows in shards])
        unit_ND = F.normalize(some_ND[present(some_ND)], dim=1)
        found[name] = float(unit_ND.mean(dim=0).square().sum())
    return found


def resolve_device(device: str, listener: Listener = SILENT) -> str:
    """Turn `auto` into a device, and check that a named one exists. Raises InvalidConfig."""
    if "torch" not in sys.modules:
        listener.loading("PyTorch")
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=device).item()
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # unknown, or not in this machine
        raise InvalidConfig(f"--device: {no_device(device)}", hint=devices()) from error
    return device
