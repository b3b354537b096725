"""Find what is wrong with a dataset before anything slow begins, without decoding an image."""

from __future__ import annotations

import time
import warnings
from collections.abc import Collection, Iterator
from typing import Any

from sparc.errors import BadSample, Problems, SparcError
from sparc.plugins.contracts import CheckedDataset, Dataset, DatasetSpec

SECONDS = 20.0
"""Longest time for the samples of a split. What is wrong with the others is found while they are extracted."""


def find_problems(spec: DatasetSpec, params: Any, modalities: Collection[str]) -> Problems:
    """Return what an extraction of images, captions or both would stop at, of all splits.

    Warnings of the dataset are passed on if nothing is wrong; otherwise most of them say the same again.
    """
    if spec.check is not None:
        return spec.check(params, modalities)
    problems = Problems()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for split in spec.splits:
            try:
                for error in faults(spec.open(params, split), modalities):
                    problems.add(error)
            except SparcError as error:
                problems.add(error)
    for one in caught if not problems else ():
        warnings.warn(one.message, one.category, stacklevel=2)
    return problems


def faults(dataset: Dataset, modalities: Collection[str]) -> Iterator[BadSample]:
    """Yield why images and captions cannot be read, in the order of the samples; an image of several samples once."""
    seen: set[str] = set()
    latest = time.monotonic() + SECONDS
    for position in range(len(dataset)):
        if time.monotonic() > latest:
            return
        sample = dataset[position]
        if "image" in modalities and (sample.image_id is None or sample.image_id not in seen):
            if sample.image_id is not None:
                seen.add(sample.image_id)
            if (fault := _image_fault(dataset, position, sample.open_image is None)) is not None:
                yield fault
        if "text" in modalities:
            try:
                sample.text()
            except BadSample as error:
                yield error


def _image_fault(dataset: Dataset, position: int, lacking: bool) -> BadSample | None:
    if lacking:
        try:
            dataset[position].image()
        except BadSample as error:
            return error
    return dataset.image_fault(position) if isinstance(dataset, CheckedDataset) else None
