"""Samples to search or to compare with: the held-out samples of a run, or a folder of images; an index per stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sparc.config import ExtractionOptions, PluginRef, RunConfig
from sparc.errors import MisalignedStreams, MissingData, StorageError
from sparc.extraction import Job, JobOptions, extract, plan
from sparc.plugins.registry import Registry, checked_params
from sparc.session.arguments import images_in
from sparc.session.listener import Listener
from sparc.session.options import store_root, writable_name
from sparc.storage.index_file import index_path, read_index, write_index
from sparc.storage.manifest import digest_ids, read_manifest
from sparc.system.files import write_output
from sparc.system.nearby import meant
from sparc.system.refusals import reading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sparc.index.inverted import InvertedIndex
    from sparc.plugins.contracts import Dataset
    from sparc.storage.checkpoint import SharedLatentSpace

FOLDER = "image-folder"
"""The dataset that reads a folder of images."""
LISTS = ("samples.csv", "samples.jsonl", "samples.tsv")
"""Files that list the images of such a folder, with captions."""


class Part:
    """One split of a dataset, whose features are in the store, as a space encodes each stream of it alone."""

    def __init__(
        self, jobs: Mapping[str, Job], space: SharedLatentSpace, registry: Registry, device: str, listener: Listener
    ) -> None:
        """Take jobs, by stream, that are done. The space is one that was loaded from a directory."""
        self.jobs = jobs
        self._space = space
        self._registry = registry
        self._device = device
        self._listener = listener
        self._indices: dict[str, InvertedIndex] = {}
        self._features: dict[str, tuple[list[Tensor], NDArray[np.int64]]] = {}

    @cached_property
    def dataset(self) -> Dataset:
        """The samples. Raises MisalignedStreams if they differ from the extracted ones."""
        job = next(iter(self.jobs.values()))
        spec = self._registry.dataset(job.dataset.name)
        dataset = spec.open(checked_params(spec, job.dataset), job.split)
        if digest_ids(list(dataset.ids)) != read_manifest(job.directory).samples_sha256:
            raise MisalignedStreams(
                f"the samples of dataset '{spec.name}' have changed since its features were extracted",
                hint="restore the old samples, or extract them again",
            )
        return dataset

    def index(self, stream: str, latents: NDArray[np.int64]) -> InvertedIndex:
        """Return the index of a stream, in which the lists of these latents are whole.

        It comes from the store, or is made and kept there.

        Raises MissingData, CorruptFile, StorageError as the readers of the store do.
        """
        from sparc.index.inverted import InvertedIndex

        if (known := self._indices.get(stream)) is not None and known.is_whole(latents):
            return known
        assert self._space.directory is not None
        path = index_path(self.jobs[stream].directory, self._space.directory, stream)
        index = None
        if known is None and (kept := read_index(path)) is not None and self._fits(stream, kept):
            index = InvertedIndex(**{name: one.numpy() for name, one in kept.items()})
        if index is None or not index.is_whole(latents):
            index = self._made(stream, path)
        self._indices[stream] = index
        return index

    def _fits(self, stream: str, kept: Mapping[str, Tensor]) -> bool:
        """Return True if an index has the latents of the space, and the rows and samples of the stream."""
        manifest, owners = read_manifest(self.jobs[stream].directory), kept["owners"]
        if (len(kept["checks"]), len(owners)) != (self._space.n_latents, sum(shard.rows for shard in manifest.shards)):
            return False
        return not len(owners) or (int(owners.min()) >= 0 and int(owners.max()) < manifest.samples)

    def _made(self, stream: str, path: Path) -> InvertedIndex:
        import torch

        from sparc.core.space import present
        from sparc.evaluation.encoding import encode_alone
        from sparc.index.inverted import InvertedIndex

        shards, owners = self._read(stream)
        total, done = sum(map(len, shards)), 0
        codes, there = [], []
        for shard in shards:
            self._listener.progress(f"index {stream}", "samples", done, total)
            done += len(shard)
            codes.append(encode_alone(self._space, stream, shard.to(self._device)).to_csr())
            there.append(present(shard))
        self._listener.progress(f"index {stream}", "samples", total, total)
        index = InvertedIndex.build(codes, torch.cat(there).numpy(), owners)
        try:
            write_index(path, {name: torch.from_numpy(array) for name, array in vars(index).items()})
        except StorageError as error:
            self._listener.warn(f"the index is not kept, so that it is made again each time: {error.message}")
        return index

    def _read(self, stream: str) -> tuple[list[Tensor], NDArray[np.int64]]:
        """Return the features of a stream in pieces, and the first sample of each row."""
        if stream not in self._features:
            import numpy as np

            from sparc.storage.store import open_streams

            store = open_streams({stream: self.jobs[stream].directory})
            owners = np.unique(store.rows[stream].numpy(), return_index=True)[1].astype(np.int64)
            self._features[stream] = store.shards[stream], owners
        return self._features[stream]

    def owners(self, stream: str) -> NDArray[np.int64]:
        """Return the first sample of the dataset that shows each distinct image or caption, (M,)."""
        return self._read(stream)[1]

    def cosines(self, stream: str, decoded_D: Tensor) -> NDArray[np.float32]:
        """Return the cosine of decoded features (D,) with the features of each distinct image or caption: (M,).

        NaN for those that lack the stream.
        """
        import torch

        from sparc.core.space import present
        from sparc.evaluation.retrieval import between, unit_features

        scores = []
        with torch.no_grad():
            for shard in self._read(stream)[0]:
                unit_MD = unit_features(self._space, stream, shard.to(self._device))
                found_1M = between(lambda rows: decoded_D.unsqueeze(0)[rows], unit_MD)(slice(0, 1)).cpu()
                scores.append(torch.where(present(shard), found_1M[0], torch.nan))
        found: NDArray[np.float32] = torch.cat(scores).numpy()
        return found

    def candidates(self, stream: str) -> int:
        """Count the distinct images or captions that have a stream."""
        return int(self._indices[stream].present.sum()) if stream in self._indices else self._count(stream)

    def _count(self, stream: str) -> int:
        from sparc.core.space import present

        return sum(int(present(shard).sum()) for shard in self._read(stream)[0])


def check_folder(folder: Path, modalities: Collection[str]) -> None:
    """Raise MissingData unless there is a folder, with captions if texts are to be found."""
    if not folder.is_dir():
        raise MissingData(f"--index: no folder at {folder}", hint=meant(folder, "check --index", folder=True))
    if "text" in modalities and not _is_listed(folder):
        raise MissingData(
            f"{folder} has no captions to find: it has no {' or '.join(LISTS)}",
            hint="find images: --find image; or write samples.csv, with the columns image and caption",
        )


def _is_listed(folder: Path) -> bool:
    return any((folder / name).is_file() for name in LISTS)


def folder_jobs(
    folder: Path, config: RunConfig, streams: Mapping[str, PluginRef], registry: Registry, listener: Listener
) -> list[dict[str, Job]]:
    """Extract a folder of images into the store, and return its jobs by stream, for each split that has samples.

    A folder without a list of samples is listed in the store. Images that cannot be read are skipped and counted.

    Raises the SparcError of an extraction, and MissingData for a folder without images.
    """
    listener.doing(f"looking for the images in {folder}")
    params = {"root": str(writable_name(folder.resolve(), "--index"))}
    splits: tuple[str, ...] = ("train", "test")
    if not _is_listed(folder):
        params["index"] = str(_listed(folder, store_root(config)).resolve())  # a relative one lies in the folder
        splits = ("test",)
    own = {name: getattr(config, name) for name in ExtractionOptions.model_fields}
    options = JobOptions(**{**own, "device": config.device, "skip_bad": True})
    source = PluginRef(name=FOLDER, alias=FOLDER, params=params)
    jobs = plan(registry, source, list(streams.values()), root=store_root(config), options=options)
    used = [jobs[split] for split in splits if _has_samples(registry, source, split)]
    every = [job for part in used for job in part.values()]
    known = [job for job in every if job.done]
    extract(every, listener.extracting)  # which tells what it skips
    skipped = {sample: None for job in known for sample in read_manifest(job.directory).skipped}
    if skipped:
        some = ", ".join(list(skipped)[:3]) + (", ..." if len(skipped) > 3 else "")
        listener.warn(f"{len(skipped)} images in {folder} could not be read when it was encoded: {some}")
    return used


def _has_samples(registry: Registry, source: PluginRef, split: str) -> bool:
    spec = registry.dataset(source.name)
    try:
        return len(spec.open(checked_params(spec, source), split)) > 0
    except MissingData:  # all samples are in the other split
        return False


def _listed(folder: Path, store: Path) -> Path:
    """Write the list of a folder's images into the store, each with its path as its id and caption; return its path.

    Equal folders have one list. Raises MissingData if there are none, StorageError.
    """
    images = [path.relative_to(folder).as_posix() for path in images_in(folder)[0]]
    if not images:
        raise MissingData(f"no image in the folder {folder}", hint="give a folder with images: --index FOLDER")
    named = [(image, image.encode("utf-8", "backslashreplace").decode()) for image in images]
    lines = [json.dumps({"id": name, "image": image, "caption": name, "split": "test"}) for image, name in named]
    content = "\n".join(lines) + "\n"
    path = store / "folders" / f"{hashlib.sha256(content.encode()).hexdigest()[:12]}.jsonl"
    with reading(path):
        there = path.is_file() and path.read_bytes() == content.encode()
    if not there:
        write_output(path, lambda temporary: temporary.write_text(content, encoding="utf-8"))
    return path
