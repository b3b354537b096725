"""The contract of a dataset as checks."""

from __future__ import annotations

import pickle  # noqa: TID251  # data-loading workers receive the dataset pickled
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from sparc.errors import BadSample, InvalidConfig
from sparc.plugins.checks.checks import (
    Check,
    Outcome,
    check_identity,
    check_light,
    check_params,
    check_words,
    module_of,
    outcomes,
    params_of,
    raise_broken,
    require,
)
from sparc.plugins.contracts import Dataset, DatasetSpec, Params, Sample, SegmentedDataset

LOOKED_AT = 16
"""Number of samples of a split that are opened."""


def check_dataset(spec: DatasetSpec, params: Mapping[str, Any] | None = None) -> None:
    """Check the whole contract of a dataset, with parameters such as {"root": "path/to/folder"}.

    Raises PluginError, which names each broken promise, what was found, and what to change.
    """
    raise_broken(f"the dataset '{spec.name}'", dataset_outcomes(spec, params))


def dataset_outcomes(spec: DatasetSpec, params: Mapping[str, Any] | None = None) -> Iterator[Outcome]:
    """Yield the outcome of each check. Ends early if a split does not open."""
    return outcomes(_Dataset(spec, params).checks())


class _Dataset:
    """A dataset under test."""

    def __init__(self, spec: DatasetSpec, given: Mapping[str, Any] | None) -> None:
        self.spec = spec
        self.given = given
        self.splits: dict[str, Any] = {}

    @property
    def params(self) -> Params:
        return params_of(self.spec.params, self.given, self.spec.name)

    def checks(self) -> Iterator[Check]:
        yield "its name and summary can be listed", partial(check_words, self.spec.name, self.spec.summary)
        yield "it has images or text", self._modalities
        yield "its parameters have a schema", partial(check_params, self.spec.params)
        yield "its default options are options of training", self._defaults
        yield "listing it imports no heavy library", partial(check_light, module_of(self.spec.open))
        yield "its data have an identity", lambda: check_identity(self.spec.identify, self.params)
        yield "both splits open", self._open
        if len(self.splits) < 2:
            return
        yield "ids are unique texts, and the same when it is opened again", self._ids
        yield "no group is in both splits", self._groups
        yield "samples match their ids, and have an image and a caption as the spec says", self._samples
        yield "it can be sent to other processes", self._pickle
        yield "labels are multi-hot, with a column for each label of the taxonomy", self._labels
        if all(isinstance(one, SegmentedDataset) for one in self.splits.values()):
            yield "masks have the image's size", self._masks

    def _modalities(self) -> None:
        good = bool(self.spec.modalities) and set(self.spec.modalities) <= {"image", "text"}
        require(good, f"its modalities are {self.spec.modalities!r}", change="name 'image', 'text' or both")
        two = len(set(self.spec.splits)) == 2
        require(two, f"its splits are {self.spec.splits!r}", change="name one to train on and another to evaluate on")

    def _defaults(self) -> None:
        from sparc.config import RunConfig, validated

        try:
            validated(RunConfig, {"dataset": self.spec.name, **self.spec.defaults})
        except InvalidConfig as error:
            require(False, error.message, change="use the names and values of options of `sparc train` in defaults")

    def _open(self) -> None:
        for split in self.spec.splits:
            opened: Dataset = self.spec.open(self.params, split)
            require(
                len(opened) > 0,
                f"the split '{split}' has no samples",
                change="raise MissingData when nothing can be opened",
            )
            self.splits[split] = opened

    def _ids(self) -> None:
        for split, opened in self.splits.items():
            ids = list(opened.ids)
            texts = all(isinstance(one, str) and one for one in ids)
            require(texts, f"in '{split}' an id is not a text", change="return ids as a list of str")
            counts = (len(ids), len(set(ids)), len(opened), len(list(opened.groups)))
            require(
                len(set(counts)) == 1,
                f"in '{split}' there are {counts[0]} ids, {counts[1]} of them different, {counts[2]} samples and "
                f"{counts[3]} groups",
                change="give each sample a unique id, and a group; return the ids as groups if samples share nothing",
            )
            again = list(self.spec.open(self.params, split).ids)
            require(
                again == ids, f"opened again, '{split}' has other ids", change="sort the samples, and seed random draws"
            )

    def _groups(self) -> None:
        first, second = (set(opened.groups) for opened in self.splits.values())
        shared = sorted(first & second)
        require(
            not shared,
            f"{len(shared)} groups are in both, such as '{next(iter(shared), '')}'",
            change="split by group, so that test samples are not in training; sparc.plugins.held_out helps",
        )

    def _samples(self) -> None:
        for split, opened in self.splits.items():
            for place in _places(len(opened)):
                sample = opened[place]
                where = f"sample {place} of '{split}'"
                require(
                    isinstance(sample, Sample),
                    f"{where} is a {type(sample).__name__}",
                    change="return sparc.plugins.Sample",
                )
                same = sample.id == opened.ids[place]
                require(
                    same, f"{where} has the id '{sample.id}', ids say '{opened.ids[place]}'", change="make them agree"
                )
                try:
                    if "image" in self.spec.modalities:
                        image = sample.image()
                        require(
                            isinstance(image, Image.Image),
                            f"{where} has no Pillow image",
                            change="open it with Pillow",
                        )
                    if "text" in self.spec.modalities:
                        sample.text()
                except BadSample as error:
                    require(False, error.message, change="leave that sample out, or repair it")

    def _pickle(self) -> None:
        for split, opened in self.splits.items():
            try:
                restored = pickle.loads(pickle.dumps(opened))
            except Exception as error:
                reason = f"pickling '{split}' raises {type(error).__name__}: {error}".splitlines()[0]
                require(False, reason, change="hold no open files and no nested functions; use functools.partial")
            require(
                restored[0].id == opened[0].id,
                f"'{split}' differs after pickling",
                change="pickle all that samples need",
            )

    def _labels(self) -> None:
        for split, opened in self.splits.items():
            labels, taxonomy = opened.labels(), opened.taxonomy
            both = (labels is None) == (taxonomy is None)
            require(
                both,
                f"'{split}' has {'labels' if taxonomy is None else 'a taxonomy'} alone",
                change="provide both, or neither",
            )
            if labels is None:
                continue
            shape = (len(opened), len(taxonomy.labels))
            require(
                labels.shape == shape,
                f"labels of '{split}' are {labels.shape}, expected {shape}",
                change="return that shape",
            )
            hot = bool(np.isin(labels.data, (0, 1)).all())
            require(
                hot, f"labels of '{split}' have values other than 0 and 1", change="set each label of a sample to 1"
            )

    def _masks(self) -> None:
        for split, opened in self.splits.items():
            for place in _places(len(opened)):
                width, height = opened[place].image().size
                for label, mask in opened.masks(place).items():
                    found = (mask.dtype == np.bool_, mask.shape) == (True, (height, width))
                    what = f"the mask '{label}' of sample {place} of '{split}' is {mask.dtype} {mask.shape}"
                    require(found, what, change=f"make it bool, {(height, width)} as the image")


def _places(count: int) -> list[int]:
    """Return evenly spaced sample numbers."""
    places: list[int] = np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(int)).tolist()
    return places
