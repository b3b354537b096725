"""Plan an extraction: one job per stream and split, with the directory that its features go to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from sparc.config import ExtractionOptions, PluginRef
from sparc.errors import (
    CorruptFile,
    InvalidConfig,
    MisalignedStreams,
    MissingData,
    UnknownName,
    WeightsUnavailable,
)
from sparc.plugins.contracts import BackboneSpec, Params
from sparc.plugins.registry import Registry, checked_params
from sparc.storage.manifest import (
    IMPORTED,
    IMPORTING,
    Manifest,
    fingerprint,
    how_to_remake,
    is_complete,
    read_manifest,
)
from sparc.system.locks import holder, in_use
from sparc.system.nearby import meant
from sparc.system.refusals import reading

SPLITS = ("train", "test")
"""Splits of imported features."""
AGAIN = "run the same command again: complete shards are kept"
"""Advice after an error that says nothing about the data."""


class Share(NamedTuple):
    """One process's share of the shards: those whose number modulo `of` is `number`."""

    number: int = 0
    of: int = 1
    helps: bool = False
    """True if the process computes shards of others once its own are done, and ends when all are complete."""

    def has(self, shard: int) -> bool:
        """Return True if the shard belongs to this share."""
        return shard % self.of == self.number


WHOLE = Share()


class JobOptions(ExtractionOptions):
    """Options of the computation and storage of features, with the device to compute on."""

    device: str = "cpu"
    tokens: bool = False
    """True stores the features of image patches too."""


class Job(BaseModel):
    """One stream of one split of a dataset, as plain data that can be sent to a worker process."""

    model_config = ConfigDict(frozen=True)

    dataset: PluginRef
    split: str
    stream: PluginRef
    directory: Path
    """Directory of the features."""
    weights: str
    """Identity of the weights, as the backbone gives it."""
    options: JobOptions

    @property
    def done(self) -> bool:
        """True if the store has these features. Samples that were skipped are retried unless `skip_bad` is set.

        Raises CorruptFile if the directory holds those of another stream.
        """
        if not is_complete(self.directory):
            return False
        try:
            manifest = read_manifest(self.directory)
        except MissingData:  # another process is rewriting a shard
            return False
        if self.dataset.name != IMPORTED:
            _check_own(manifest, self)
        has_tokens = manifest.tokens is not None or not self.options.tokens
        return has_tokens and (self.options.skip_bad or not manifest.skipped)


def _check_own(manifest: Manifest, job: Job) -> None:
    """Raise CorruptFile if the manifest in the directory of a job is that of another stream or split."""
    expected = (job.directory.name.rpartition("-")[0], job.weights, job.split)
    found = (manifest.backbone, manifest.weights, manifest.split)
    for what, one, other in zip(("the backbone", "the weights", "the split"), expected, found, strict=True):
        if one != other:
            raise CorruptFile(
                f"{job.directory} holds the features of another stream or split: expected {what} '{one}', "
                f"found '{other}'",
                hint=how_to_remake(job.directory),
            )


class Feed(BaseModel):
    """Samples whose features are computed for a training without a store, by their place in the reading order."""

    model_config = ConfigDict(frozen=True)

    seed: int
    """Seed of the reading order."""
    first: list[int]
    """Places that come first: those in the buffer."""
    start: int
    end: int
    """The places from `start` to `end`, without it, follow."""


class Order(BaseModel):
    """Order for a worker process."""

    model_config = ConfigDict(frozen=True)

    jobs: list[Job]
    share: Share = WHOLE
    probe: bool = False
    """True computes a few samples of each job for an estimate, and writes nothing."""
    feed: Feed | None = None
    """Samples of one split whose features are sent back, in their order, instead of stored."""


def plan(
    registry: Registry,
    dataset: PluginRef,
    streams: Sequence[PluginRef],
    *,
    root: Path,
    options: JobOptions,
    recorded: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, dict[str, Job]]:
    """Return the jobs of all splits and streams, by split and stream. Loads no backbone and opens no dataset.

    A job names the commit of weights from the hub: whoever loads its stream, at whatever time, gets these weights.
    recorded: identities of weights by stream, as a run recorded them. They hold where the weights are not there any
    more, so that features in the store are found without them.

    Raises:
        InvalidConfig: there are no streams, a parameter is unknown, or the dataset lacks a stream's modality.
        UnknownName: no plugin offers a stream or the dataset.
        MissingData, WeightsUnavailable: a plugin reports a path that does not exist.
    """
    source = registry.dataset(dataset.name)
    source_params = checked_params(source, dataset)
    folder = root / fingerprint(source.name, source_params.model_dump(mode="json"), source.identify(source_params))
    if not streams:
        raise InvalidConfig(
            "expected at least one stream, found none", hint="add --stream NAME; names: sparc plugins list"
        )
    jobs: dict[str, dict[str, Job]] = {split: {} for split in source.splits}
    unavailable: list[WeightsUnavailable] = []
    for stream in streams:
        backbone = registry.backbone(stream.name)
        params = checked_params(backbone, stream)
        if backbone.modality not in source.modalities:
            raise InvalidConfig(
                f"stream '{stream.name}' reads {backbone.modality}, dataset '{source.name}' has "
                f"{' and '.join(source.modalities)}",
                hint="choose another stream or dataset; see: sparc plugins list",
            )
        try:
            weights = backbone.identify(params)
        except (MissingData, WeightsUnavailable) as error:
            if stream.alias not in recorded:
                if isinstance(error, MissingData):
                    raise
                unavailable.append(error)  # name the weights of all streams that cannot be had
                continue
            weights = recorded[stream.alias]
        stream, name = _pinned(stream, backbone, params, weights, options)
        for split in source.splits:
            jobs[split][stream.alias] = Job(
                dataset=dataset,
                split=split,
                stream=stream,
                directory=folder / split / name,
                weights=weights,
                options=options.model_copy(update={"tokens": options.tokens and backbone.modality == "image"}),
            )
    if unavailable:
        raise WeightsUnavailable.joined(unavailable)
    return jobs


def _pinned(
    stream: PluginRef, backbone: BackboneSpec, params: Params, weights: str, options: JobOptions
) -> tuple[PluginRef, str]:
    """Return a stream with the commit of its weights, if they are from the hub, and the fingerprint of its features."""
    telling = params.model_dump(mode="json") | _changed_from_default(options, backbone.modality)
    if (commit := _commit(weights)) is not None and "revision" in telling:
        del telling["revision"]  # the identity says more: a branch points to other commits in time
        pinned = params.model_dump(mode="json", exclude_unset=True) | {"revision": commit}
        stream = stream.model_copy(update={"params": pinned})
    return stream, fingerprint(backbone.name, telling, weights)


def imported(
    root: Path, streams: Sequence[PluginRef], options: JobOptions, *, splits: Sequence[str] = SPLITS
) -> dict[str, dict[str, Job]]:
    """Return the jobs of features that `sparc import features` wrote into `root`: for these streams, or for all.

    A reference's name is the imported stream, its alias the stream's name in the space.

    Raises:
        InvalidConfig: a stream has parameters, which only backbones take.
        MissingData: `root` holds no features, an import into it was interrupted, or a split lacks a stream.
        UnknownName: a stream was not imported.
        MisalignedStreams: the splits of a stream have different widths, or the test split has a stream more.
        StorageError: the machine refuses to read the folder.
    """
    for stream in streams:
        if stream.params:
            raise InvalidConfig(
                f"stream '{stream.alias}': expected the name of imported features, found parameters of a backbone",
                hint=f"write --stream {stream.name}",
            )
    jobs: dict[str, dict[str, Job]] = {}
    widths: dict[str, int] = {}
    with reading(root):
        found_root = root.is_dir()
    if not found_root:
        hint = meant(root, "give the folder of imported features: --features FOLDER", folder=True)
        raise MissingData(f"--features: no folder at {root}", hint=hint)
    check_imported(root)
    in_train: set[str] = set()
    for split in splits:
        with reading(root / split):  # glob would take a folder that may not be listed for an empty one
            folders = sorted((root / split).iterdir()) if (root / split).is_dir() else []
        found = {folder.name: read_manifest(folder).width for folder in folders if is_complete(folder)}
        if not streams:
            _check_whole(root, split, folders, set(found), in_train)
            in_train = set(found)
        if not found:
            raise MissingData(
                f"no imported features of the split '{split}' in {root}",
                hint=f"sparc import features --stream NAME=FILE --split {split} --out {root}",
            )
        origins = {stream.alias: stream.name for stream in streams} or {name: name for name in widths or sorted(found)}
        for alias, name in origins.items():
            if name not in found:
                raise UnknownName(
                    f"no stream named '{name}' was imported as '{split}'", hint=f"imported: {', '.join(sorted(found))}"
                )
            if widths.setdefault(alias, found[name]) != found[name]:
                raise MisalignedStreams(
                    f"stream '{name}' has width {widths[alias]} in train and {found[name]} in test",
                    hint="import both from one model",
                )
        jobs[split] = {
            alias: _imported_job(root, split, PluginRef(name=name, alias=alias), options)
            for alias, name in origins.items()
        }
    return jobs


def _imported_job(root: Path, split: str, stream: PluginRef, options: JobOptions) -> Job:
    return Job(
        dataset=PluginRef(name=IMPORTED, alias=IMPORTED),
        split=split,
        stream=stream,
        directory=root / split / stream.name,
        weights="",
        options=options,
    )


def check_imported(root: Path) -> None:
    """Raise InUse while an import writes into `root`, and MissingData if an import was killed there."""
    with reading(root):
        begun = (root / IMPORTING).is_file()
    if not begun:
        return
    if (owner := holder(root)) is not None:
        raise in_use(root, owner, "wait until that import ends")
    raise MissingData(
        f"the import into {root} was interrupted, so features are missing",
        hint=f"run sparc import features --out {root} again, with the same files: it starts again",
    )


def _check_whole(root: Path, split: str, folders: Sequence[Path], found: set[str], in_train: set[str]) -> None:
    """Raise MissingData for features without a manifest, and MisalignedStreams for a stream that train lacks."""
    for folder in folders:
        if folder.name not in found and any(folder.glob("shard-*.safetensors")):
            raise MissingData(
                f"the features of the stream '{folder.name}' in {folder} are incomplete: they have no manifest",
                hint=f"remove {root} and import them again; or name the streams to train on: --stream NAME",
            )
    more = sorted(found - in_train)
    if split == "test" and in_train and more:
        raise MisalignedStreams(
            f"the stream '{more[0]}' was imported as test and not as train, in {root}",
            hint="import both splits with the same streams; or name the streams to train on: --stream NAME",
        )


def _commit(weights: str) -> str | None:
    """Return the commit in the identity of hub weights, `hub:OWNER/NAME@COMMIT`; None in another identity.

    What follows behind a space identifies other files, such as a tokenizer of another repository.
    """
    repo, _, commit = weights.partition(" ")[0].partition("@")
    return commit if repo.startswith("hub:") and commit else None


def _changed_from_default(options: JobOptions, modality: str) -> dict[str, str]:
    """Return the options that change the features of a modality, and add to the fingerprint.

    Precisions of float32, and images as stored, add nothing: features that were extracted before there was a choice are
    of this kind.
    """
    values = {"precision": options.precision, "store-dtype": options.store_dtype}
    found = {name: value for name, value in values.items() if value != "float32"}
    return found | ({"exif": options.exif} if modality == "image" and options.exif != "ignore" else {})


def directories(jobs: Mapping[str, Job]) -> dict[str, Path]:
    """Return the directory of each stream of a split."""
    return {name: job.directory for name, job in jobs.items()}
