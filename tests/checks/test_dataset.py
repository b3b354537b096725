"""The contract of datasets as checks: our datasets pass, and a broken promise says what to change."""

import operator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import csr_array

from sparc.errors import PluginError
from sparc.plugins import DatasetSpec, Sample, Taxonomy
from sparc.plugins.checks import check_dataset
from sparc.plugins.checks.dataset import dataset_outcomes
from sparc.plugins.registry import discover


class Good:
    """Four red images with one label, two in each split."""

    taxonomy = Taxonomy({"red": []})

    def __init__(self, params=None, split="train"):
        self.ids = [f"{split}-{number}" for number in range(2)]
        self.groups = self.ids

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return Sample(self.ids[index], partial(Image.new, "RGB", (4, 3), "red"), "a red picture")

    def labels(self):
        return csr_array(np.ones((2, 1)))


def spec(kind=Good, **changes):
    # The module of `open` is `operator`, since this module imports scipy, and torch through pytest's configuration.
    return replace(DatasetSpec("good", partial(operator.call, kind), summary="red pictures"), **changes)


def broken(found):
    return {one.promise: f"{one.error.message}; {one.error.hint}" for one in found if one.error is not None}


def test_a_dataset_that_keeps_the_contract_passes(photos):
    check_dataset(spec())
    check_dataset(discover().dataset("image-folder"), {"root": str(photos)})


class SharesGroups(Good):
    def __init__(self, params=None, split="train"):
        super().__init__(params, split)
        self.groups = ["one", split]


class RepeatsIds(Good):
    def __init__(self, params=None, split="train"):
        self.ids = self.groups = [split, split]


class OtherIds(Good):
    def __getitem__(self, index):
        return Sample("other", partial(Image.new, "RGB", (4, 3)), "a picture")


class NoCaption(Good):
    def __getitem__(self, index):
        return Sample(self.ids[index], partial(Image.new, "RGB", (4, 3)), " ")


class Unsendable(Good):
    def __init__(self, params=None, split="train"):
        super().__init__(params, split)
        self.open = lambda: None


class WideLabels(Good):
    def labels(self):
        return csr_array(np.ones((2, 3)))


class CountsLabels(Good):
    def labels(self):
        return csr_array(2 * np.ones((2, 1)))


class Unlabelled(Good):
    def labels(self):
        return None


class WrongMasks(Good):
    def masks(self, index):
        return {"red": np.zeros((4, 3), bool)}


class Empty(Good):
    def __init__(self, params=None, split="train"):
        self.ids = self.groups = []


@pytest.mark.parametrize(
    ("kind", "promise", "found"),
    [
        (SharesGroups, "no group is in both splits", "1 groups are in both, such as 'one'"),
        (RepeatsIds, "ids are unique texts", "2 ids, 1 of them different"),
        (OtherIds, "samples match their ids", "has the id 'other', ids say 'train-0'"),
        (NoCaption, "samples match their ids", "has an empty caption"),
        (Unsendable, "it can be sent to other processes", "use functools.partial"),
        (WideLabels, "labels are multi-hot", "labels of 'train' are (2, 3), expected (2, 1)"),
        (CountsLabels, "labels are multi-hot", "values other than 0 and 1"),
        (Unlabelled, "labels are multi-hot", "'train' has a taxonomy alone"),
        (WrongMasks, "masks have the image's size", "bool (4, 3); make it bool, (3, 4)"),
        (Empty, "both splits open", "the split 'train' has no samples"),
    ],
)
def test_a_broken_promise_says_what_was_found_and_what_to_change(kind, promise, found):
    told = broken(dataset_outcomes(spec(kind)))
    text = next((text for name, text in told.items() if name.startswith(promise)), None)
    assert text is not None, told
    assert found in text


def test_what_a_spec_says_is_checked():
    told = broken(dataset_outcomes(spec(modalities=("images",), defaults={"latents": 5})))
    assert "name 'image', 'text' or both" in told["it has images or text"]
    assert "latents" in told["its default options are options of training"]
    assert "another to evaluate on" in broken(dataset_outcomes(spec(splits=("all", "all"))))["it has images or text"]


def test_check_dataset_names_all_that_is_broken():
    with pytest.raises(PluginError, match="'good' breaks 1 of its promises"):
        check_dataset(spec(SharesGroups))
