"""What there is to extract, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sparc.config import ForwardPrecision, PluginRef, StoreDtype
from sparc.errors import InvalidConfig, MisalignedStreams, MissingData, UnknownName
from sparc.plugins.registry import Registry, checked_params
from sparc.storage.manifest import MANIFEST, fingerprint, is_complete, read_manifest

IMPORTED = "imported"
"""What the dataset of imported features is called."""


class How(BaseModel):
    """How features are computed and stored."""

    model_config = ConfigDict(frozen=True)

    device: str = "cpu"
    precision: ForwardPrecision = "float32"
    """Of the backbones' products."""
    store_dtype: StoreDtype = "float32"
    compile: bool = False
    skip_bad: bool = False
    tokens: bool = False
    """Whether image streams store the features of patches too."""


class Job(BaseModel):
    """One stream of one split of a dataset: plain data, so that a worker process can be told."""

    model_config = ConfigDict(frozen=True)

    dataset: PluginRef
    split: str
    stream: PluginRef
    directory: Path
    """Where the features go."""
    weights: str
    """What the backbone says its weights are."""
    how: How

    @property
    def done(self) -> bool:
        """Whether the store has it already. What an earlier run skipped counts only where this one skips too."""
        if not is_complete(self.directory):
            return False
        try:
            manifest = read_manifest(self.directory)
        except MissingData:  # another process has begun to make a shard anew
            return False
        has_tokens = manifest.tokens is not None or not self.how.tokens
        return has_tokens and (self.how.skip_bad or not manifest.skipped)


class Order(BaseModel):
    """What a worker process shall do."""

    model_config = ConfigDict(frozen=True)

    jobs: list[Job]
    part: tuple[int, int] = (0, 1)
    """Of so many processes that share the jobs, which one this is."""
    probe: bool = False
    """Whether to try some samples of each job only, and write nothing."""


def plan(
    registry: Registry,
    dataset: PluginRef,
    streams: Sequence[PluginRef],
    *,
    root: Path,
    how: How,
) -> dict[str, dict[str, Job]]:
    """Lay out the jobs of all splits and streams: split to stream to job. Loads no backbone and opens no dataset.

    Raises:
        InvalidConfig: no streams, an unknown parameter, or a stream that reads what the dataset does not have.
        UnknownName: a stream or dataset that no plugin offers.
        MissingData, WeightsUnavailable: what a plugin says about a path that is not there.
    """
    source = registry.dataset(dataset.name)
    source_params = checked_params(source, dataset)
    folder = root / fingerprint(source.name, source_params.model_dump(mode="json"), source.identify(source_params))
    if not streams:
        raise InvalidConfig(
            "expected at least one stream, found none", hint="add --stream NAME; names: sparc plugins list"
        )
    jobs: dict[str, dict[str, Job]] = {split: {} for split in source.splits}
    for stream in streams:
        backbone = registry.backbone(stream.name)
        params = checked_params(backbone, stream)
        if backbone.modality not in source.modalities:
            raise InvalidConfig(
                f"stream '{stream.name}' reads {backbone.modality}, dataset '{source.name}' has "
                f"{' and '.join(source.modalities)}",
                hint="choose another stream or dataset; see: sparc plugins list",
            )
        weights = backbone.identify(params)
        telling = params.model_dump(mode="json") | _unlike_default(how)
        name = fingerprint(backbone.name, telling, weights)
        for split in source.splits:
            jobs[split][stream.alias] = Job(
                dataset=dataset,
                split=split,
                stream=stream,
                directory=folder / split / name,
                weights=weights,
                how=how.model_copy(update={"tokens": how.tokens and backbone.modality == "image"}),
            )
    return jobs


def imported(root: Path, streams: Sequence[PluginRef], how: How) -> dict[str, dict[str, Job]]:
    """The same for features that `sparc import features` wrote into `root`: of these streams, or of all.

    Raises:
        MissingData: there are none, or a split lacks a stream.
        UnknownName: a stream that was not imported.
        MisalignedStreams: the splits of a stream have different widths.
    """
    jobs: dict[str, dict[str, Job]] = {}
    widths: dict[str, int] = {}
    for split in ("train", "test"):
        found = {path.parent.name: read_manifest(path.parent).width for path in (root / split).glob(f"*/{MANIFEST}")}
        if not root.is_dir():
            raise MissingData(f"no folder at {root}", hint="say where the imported features are: --features FOLDER")
        if not found:
            raise MissingData(
                f"no imported features of the split '{split}' in {root}",
                hint=f"sparc import features --stream NAME=FILE --split {split} --out {root}",
            )
        names = list(widths) or [stream.alias for stream in streams] or sorted(found)
        for name in names:
            if name not in found:
                raise UnknownName(
                    f"no stream named '{name}' was imported as '{split}'", hint=f"there are: {', '.join(sorted(found))}"
                )
            if widths.setdefault(name, found[name]) != found[name]:
                raise MisalignedStreams(
                    f"stream '{name}' has width {widths[name]} in train and {found[name]} in test",
                    hint="import both from one model",
                )
        jobs[split] = {
            name: Job(
                dataset=PluginRef(name=IMPORTED, alias=IMPORTED),
                split=split,
                stream=PluginRef(name=name, alias=name),
                directory=root / split / name,
                weights="",
                how=how,
            )
            for name in names
        }
    return jobs


def _unlike_default(how: How) -> dict[str, str]:
    """What of `how` changes the features; features as they are by default are found by their backbone alone."""
    said = {"precision": how.precision, "store-dtype": how.store_dtype}
    return {name: value for name, value in said.items() if value != "float32"}


def directories(jobs: Mapping[str, Job]) -> dict[str, Path]:
    """Where the streams of a split lie."""
    return {name: job.directory for name, job in jobs.items()}
